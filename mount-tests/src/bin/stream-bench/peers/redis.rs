//! Redis, without persistence.

use super::{Started, program};
use anyhow::{Context as _, Result};
use redis::{Client, Cmd, Connection, ConnectionLike};
use std::path::Path;
use std::process::Command;

/// See the module.
#[derive(Debug)]
pub struct Server {
    client: Client,
    url: String,
    _started: Option<Started>,
}

impl Server {
    /// `start`, `none`, HOST:PORT, or the path of a socket. One that is started here listens on a socket in
    /// `dir` alone: the fastest way to it.
    pub fn asked(asked: &str, dir: &Path) -> Result<Option<Self>> {
        let (url, start) = match asked {
            "none" => return Ok(None),
            "start" => (format!("unix://{}", dir.join("redis.sock").display()), true),
            path if path.starts_with('/') => (format!("unix://{path}"), false),
            address => (format!("redis://{address}"), false),
        };
        let client = Client::open(url.as_str()).with_context(|| format!("--redis {asked}"))?;
        let mut started = None;
        if start {
            let mut command = Command::new(program("redis-server"));
            command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
            command.arg(dir.join("redis.sock")).arg("--dir").arg(dir);
            started = Some(Started::new(command, || client.get_connection().is_ok())?);
        }
        client.get_connection().with_context(|| format!("Redis at {url} can't be reached"))?;
        Ok(Some(Self { client, url, _started: started }))
    }

    /// A connection of its own.
    pub fn connect(&self) -> Result<Connection> {
        Ok(self.client.get_connection()?)
    }

    /// Where it is, for another process.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How it is reached, for people.
    pub fn way(&self) -> &'static str {
        if self.url.starts_with("unix") { "Unix socket" } else { "TCP" }
    }

    /// The server's process.
    pub fn pid(&self) -> Result<i32> {
        Ok(self.info("process_id")?.parse()?)
    }

    /// Its name and version.
    pub fn version(&self) -> Result<String> {
        Ok(format!("Redis {} ({})", self.info("redis_version")?, self.way()))
    }

    /// Forgets a stream.
    pub fn forget(&self, key: &str) -> Result<()> {
        redis::cmd("DEL").arg(key).exec(&mut self.connect()?)?;
        Ok(())
    }

    fn info(&self, field: &str) -> Result<String> {
        let info: String = redis::cmd("INFO").arg("server").query(&mut self.connect()?)?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.with_context(|| format!("INFO has no {field}"))?.trim().to_owned())
    }
}

/// `XADD key [MAXLEN ~ most] * d record`: the shortest form that makes an entry of one field.
pub fn xadd(key: &str, most: Option<usize>, record: &[u8]) -> Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(key);
    if let Some(most) = most {
        command.arg("MAXLEN").arg("~").arg(most);
    }
    command.arg("*").arg("d").arg(record).take()
}

/// Sends `times` commands that were packed beforehand in one write, and reads as many answers.
pub fn send(connection: &mut Connection, packed: &[u8], times: usize) -> Result<()> {
    for answer in connection.req_packed_commands(packed, 0, times)? {
        // An error among the answers of a pipeline is a value.
        answer.extract_error()?;
    }
    Ok(())
}
