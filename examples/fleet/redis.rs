//! A redis-server on a free loopback port.

use std::{
    env, fs, io,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

pub(crate) struct Redis {
    port: u16,
    folder: PathBuf,
    server: Option<Child>,
}

impl Redis {
    /// Fails if it is not installed.
    pub(crate) fn start() -> io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = env::temp_dir().join(format!("klavi-auth-example-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let mut redis = Self {
            port,
            folder,
            server: None,
        };
        redis.resume()?;
        Ok(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.server.is_some()
    }

    /// Starts it, without data.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        let server = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        self.server = Some(server);
        Ok(())
    }

    /// Kills it.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
        drop(fs::remove_dir_all(&self.folder));
    }
}
