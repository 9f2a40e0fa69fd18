//! The client alone.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let http = reqwest::Client::new();
    println!("{}", http.get("http://localhost:1/").send().await?.status());
    Ok(())
}
