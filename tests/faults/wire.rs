//! What the server sends instead of a good response, byte by byte.

use std::{io, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// What goes over the wire in place of a response.
#[derive(Clone, Debug)]
pub(crate) enum Wire {
    /// These bytes, and the connection stays open for further requests.
    Respond(Bytes),
    /// These bytes, the end of the stream, and nothing more: the client's half stays open until the
    /// client ends it.
    HalfClose(Bytes),
    /// These bytes, and a TCP RST once they had the time to arrive.
    Reset(Bytes),
    /// These bytes, and silence until the client goes away.
    Hold(Bytes),
    /// The first bytes at once, and the others one per second.
    Trickle(Bytes, Bytes),
    /// The first bytes, and the others this many times or until the client goes away. Then silence.
    Repeat(Bytes, Bytes, usize),
}

/// The connection, if it is good for another request.
pub(crate) async fn play(wire: Wire, mut stream: TcpStream) -> io::Result<Option<TcpStream>> {
    match wire {
        Wire::Respond(bytes) => {
            stream.write_all(&bytes).await?;
            return Ok(Some(stream));
        }
        Wire::HalfClose(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
        }
        Wire::Reset(bytes) => {
            stream.write_all(&bytes).await?;
            sleep(Duration::from_millis(50)).await;
            stream.set_zero_linger()?;
            return Ok(None);
        }
        Wire::Hold(bytes) => stream.write_all(&bytes).await?,
        Wire::Trickle(first, rest) => {
            stream.write_all(&first).await?;
            let (mut theirs, mut ours) = stream.split();
            let drip = async {
                for byte in rest {
                    sleep(Duration::from_secs(1)).await;
                    ours.write_all(&[byte]).await?;
                }
                Ok(())
            };
            return tokio::select! {
                outcome = gone(&mut theirs) => outcome,
                outcome = drip => outcome,
            }
            .map(|()| None);
        }
        Wire::Repeat(first, piece, times) => {
            stream.write_all(&first).await?;
            for _ in 0..times {
                stream.write_all(&piece).await?;
            }
        }
    }
    gone(&mut stream).await?;
    Ok(None)
}

/// Reads until the client has ended its half.
async fn gone(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<()> {
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}
