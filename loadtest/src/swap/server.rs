//! A `kith serve` of our own: free ports, a temporary data directory, gone when the scenario is over.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Subject;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum NotServing {
    /// The binary or its folder.
    #[error("{0}: {1}")]
    Start(String, std::io::Error),
    /// It ended, or did not say where it listens, or that it is ready, in time.
    #[error("kith serve did not say in time that it serves: {0}")]
    Silent(String),
}

/// The process. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Removed after the process has ended: fields are dropped in this order.
    _dir: tempfile::TempDir,
    /// Where it is.
    pub subject: Subject,
}

impl Server {
    /// Starts `kith` and waits until it is ready.
    ///
    /// # Errors
    ///
    /// It cannot be started, or is not ready within half a minute.
    pub fn start(kith: &Path, bid_threads: usize) -> Result<Self, NotServing> {
        let dir = tempfile::tempdir()
            .map_err(|why| NotServing::Start("a temporary folder".to_owned(), why))?;
        let config = dir.path().join("kith.toml");
        std::fs::write(&config, self::config(dir.path(), bid_threads))
            .map_err(|why| NotServing::Start(config.display().to_string(), why))?;
        let mut child = Command::new(kith)
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|why| NotServing::Start(kith.display().to_string(), why))?;
        let (told, lines) = mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            // Read to its end, so that the process never waits for room in the pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let _ = told.send(line);
                }
            });
        }
        let pid = child.id();
        let deadline = Instant::now() + START_TIMEOUT;
        let mut log = Vec::new();
        let mut server = Self {
            child,
            _dir: dir,
            subject: Subject {
                bid: ([127, 0, 0, 1], 0).into(),
                admin: ([127, 0, 0, 1], 0).into(),
                pid,
            },
        };
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let (Some(bid), Some(admin)) = (address(&line, "bid="), address(&line, "admin=")) {
                server.subject = Subject { bid, admin, pid };
                let left = deadline.saturating_duration_since(Instant::now());
                return match server.subject.wait_until_ready(left) {
                    true => Ok(server),
                    false => Err(NotServing::Silent("/readyz stays as it is".to_owned())),
                };
            }
            log.push(line);
        }
        Err(NotServing::Silent(log.join(" | ")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address after `key` in a line of the log.
fn address(line: &str, key: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace();
    words
        .find_map(|word| word.strip_prefix(key))
        .and_then(|text| text.parse().ok())
}

/// The service's configuration, with its data below `dir`. Nothing is shed and nothing is late: an answer without a bid
/// is to mean a missing version, and never a busy machine.
#[must_use]
pub fn config(dir: &Path, bid_threads: usize) -> String {
    let data = toml_string(&dir.join("data").display().to_string());
    format!(
        "[bid]\nlisten = \"127.0.0.1:0\"\nthreads = {bid_threads}\n[admin]\nlisten = \"127.0.0.1:0\"\n[data]\ndir = {data}\nkeep_versions = 20\n\
         [guards]\nenabled = false\n[limits]\nqueue_target_ms = 20000\n\
         [exchanges.demo]\ncurrency = \"USD\"\ndefault_tmax_ms = 60000\n"
    )
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_the_log() {
        let line = "2026-11-01T00:00:00Z  INFO serving bid=127.0.0.1:4001 admin=127.0.0.1:4002";
        assert_eq!(address(line, "bid="), Some(([127, 0, 0, 1], 4001).into()));
        assert_eq!(address(line, "admin="), Some(([127, 0, 0, 1], 4002).into()));
        assert_eq!(address("INFO replaying", "bid="), None);
    }

    #[test]
    fn what_does_not_start_is_told() {
        let error = Server::start(Path::new("/nowhere/kith"), 1)
            .expect_err("nothing is there")
            .to_string();
        assert!(error.starts_with("/nowhere/kith: "), "{error}");
        let error = Server::start(Path::new("/bin/true"), 1)
            .expect_err("it ends at once")
            .to_string();
        assert!(error.contains("did not say"), "{error}");
    }
}
