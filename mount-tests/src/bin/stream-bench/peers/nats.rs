//! NATS JetStream, streams in memory, through its own client.

use super::{Started, program};
use anyhow::{Context as _, Result};
use async_nats::Client;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use tokio::runtime::Runtime;

/// See the module.
#[derive(Debug)]
pub struct Server {
    address: String,
    pid: Option<i32>,
    version: String,
    _started: Option<Started>,
}

impl Server {
    /// `start`, `none` or HOST:PORT. One that is started here has its JetStream directory in `dir`.
    pub fn asked(asked: &str, pid: Option<i32>, dir: &Path) -> Result<Option<Self>> {
        let (address, started) = match asked {
            "none" => return Ok(None),
            "start" => {
                let port = free_port()?;
                let mut command = Command::new(program("nats-server"));
                command
                    .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
                    .arg(dir.join("nats"));
                let address = format!("127.0.0.1:{port}");
                let answers = || std::net::TcpStream::connect(&address).is_ok();
                let started = Started::new(command, answers)?;
                (address, Some(started))
            }
            address => (address.to_owned(), None),
        };
        let client = runtime()?.block_on(connect(&address))?;
        let version = client.server_info().version;
        Ok(Some(Self {
            address,
            pid: started.as_ref().map(Started::pid).or(pid),
            version,
            _started: started,
        }))
    }

    /// A connection of its own, on the calling runtime.
    pub async fn connect(&self) -> Result<Client> {
        connect(&self.address).await
    }

    /// The server's process, if it was started here or named.
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Its name and version.
    pub fn version(&self) -> String {
        format!("NATS {} (TCP)", self.version)
    }
}

/// A runtime for the calling thread alone: one thread a producer and a consumer, as on the other sides.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn connect(address: &str) -> Result<Client> {
    async_nats::connect(address).await.with_context(|| format!("NATS at {address} can't be reached"))
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
