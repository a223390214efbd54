//! Redis over loopback: a server of our own, and as much of its protocol (RESP 2) as `SET`, `GET` and `MGET` need.
//!
//! As it would be used: a key is an id's text, a value the set as bytes, two a segment. The server writes nothing to disk, listens
//! on loopback alone, on a port that the system chose, and ends with the value that holds it.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::stores::{Store, Unavailable, sum_of_bytes};

/// Commands that are on their way together while it is filled.
const PIPELINED: usize = 1_000;
const START_SECONDS_MAX: u64 = 10;
/// The longest value that is believed: more than all segments there can be.
const VALUE_BYTES_MAX: usize = 1 << 20;

pub(super) struct Redis {
    server: Server,
    client: Client,
}

/// Ends the process when it goes.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Redis {
    pub(super) fn start(folder: &Path) -> Result<Self, Unavailable> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(folder)
            .env("PATH", crate::counts::path_with_tools()?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = match command.spawn() {
            Ok(child) => Server(child),
            Err(error) => {
                let why = format!("redis-server does not run ({error}); scripts/beside fetches it");
                return Err(Unavailable::Missing(why));
            }
        };
        let mut client = Client::connect(port)?;
        client.ping()?;
        Ok(Self { server, client })
    }

    /// Sets all of them, so many commands on the way at a time.
    pub(super) fn fill(
        &mut self,
        all: impl Iterator<Item = io::Result<(String, Vec<u8>)>>,
    ) -> io::Result<()> {
        let mut under_way = 0;
        for each in all {
            let (id, set) = each?;
            self.client.command(&[b"SET", id.as_bytes(), &set]);
            under_way += 1;
            if under_way == PIPELINED {
                self.client.finish(under_way)?;
                under_way = 0;
            }
        }
        self.client.finish(under_way)
    }

    fn stat(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.server.0.id())
    }
}

impl Store for Redis {
    fn one(&mut self, id: &str) -> io::Result<u64> {
        self.client.command(&[b"GET", id.as_bytes()]);
        self.client.send()?;
        self.client.value()
    }

    fn four(&mut self, ids: [&str; 4]) -> io::Result<u64> {
        let [a, b, c, d] = ids.map(str::as_bytes);
        self.client.command(&[b"MGET", a, b, c, d]);
        self.client.send()?;
        if self.client.line(b'*')? != 4 {
            return Err(io::Error::other("MGET of four did not answer four"));
        }
        let mut sum = 0;
        for _ in ids {
            sum += self.client.value()?;
        }
        Ok(sum)
    }

    fn is_remote(&self) -> bool {
        true
    }

    /// Its one thread that serves.
    fn other_cpu_seconds(&self) -> io::Result<f64> {
        let spent = std::fs::read_to_string(self.stat("schedstat"))?;
        let ns: Option<f64> = spent.split(' ').next().and_then(|ns| ns.parse().ok());
        ns.map(|ns| ns / 1e9)
            .ok_or_else(|| io::Error::other("no CPU time of redis-server"))
    }

    fn other_resident_bytes(&self) -> io::Result<u64> {
        super::resident_bytes(&self.server.0.id().to_string())
    }
}

struct Client {
    input: BufReader<TcpStream>,
    out: Vec<u8>,
    value: Vec<u8>,
}

impl Client {
    /// Until the server listens.
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let began = Instant::now();
        let limit = Duration::from_secs(START_SECONDS_MAX);
        // Nobody sends: a wait that can end.
        let (_nobody, wait) = mpsc::channel::<()>();
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(limit))?;
                    return Ok(Self {
                        input: BufReader::with_capacity(1 << 16, stream),
                        out: Vec::new(),
                        value: Vec::new(),
                    });
                }
                Err(error) if began.elapsed() > limit => return Err(error),
                Err(_) => drop(wait.recv_timeout(Duration::from_millis(20))),
            }
        }
    }

    fn ping(&mut self) -> io::Result<()> {
        self.command(&[b"PING"]);
        self.send()?;
        self.status("+PONG\r\n")
    }

    fn command(&mut self, parts: &[&[u8]]) {
        // To a vector, which takes all.
        let _ = write!(self.out, "*{}\r\n", parts.len());
        for part in parts {
            let _ = write!(self.out, "${}\r\n", part.len());
            self.out.extend_from_slice(part);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.input.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Sends what is written, and reads so many times that it was done.
    fn finish(&mut self, commands: usize) -> io::Result<()> {
        self.send()?;
        (0..commands).try_for_each(|_| self.status("+OK\r\n"))
    }

    fn status(&mut self, wanted: &str) -> io::Result<()> {
        self.value.clear();
        self.input.read_until(b'\n', &mut self.value)?;
        match self.value == wanted.as_bytes() {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn unexpected(&self) -> io::Error {
        let line = String::from_utf8_lossy(&self.value);
        io::Error::other(format!("redis-server answered {:?}", line.trim_end()))
    }

    /// The number in a line of this type.
    fn line(&mut self, kind: u8) -> io::Result<i64> {
        self.value.clear();
        self.input.read_until(b'\n', &mut self.value)?;
        let number = self
            .value
            .strip_prefix(&[kind])
            .and_then(|line| line.strip_suffix(b"\r\n"));
        number
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
            .ok_or_else(|| self.unexpected())
    }

    /// What a value says: see [`Store`].
    fn value(&mut self) -> io::Result<u64> {
        let length = self.line(b'$')?;
        if length == -1 {
            return Ok(0);
        }
        let length = usize::try_from(length).ok();
        let length = length.filter(|length| *length <= VALUE_BYTES_MAX);
        let length = length.ok_or_else(|| self.unexpected())?;
        self.value.resize(length + 2, 0);
        self.input.read_exact(&mut self.value)?;
        Ok(sum_of_bytes(&self.value[..length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that has read so many bytes gives these answers.
    fn client(answers: &'static [u8]) -> Client {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let client = Client::connect(address).expect("connected");
        let (mut stream, _) = listener.accept().expect("accepted");
        stream.write_all(answers).expect("sent");
        client
    }

    #[test]
    fn answers_are_read() {
        let mut redis =
            client(b"+OK\r\n$4\r\n\x01\0\x03\x02\r\n$-1\r\n*4\r\n$0\r\n\r\n-ERR no\r\n");
        redis.finish(1).expect("done");
        assert_eq!(redis.value().expect("a set"), 1 + 2 + 0x204);
        assert_eq!(redis.value().expect("none"), 0);
        assert_eq!(redis.line(b'*').expect("four"), 4);
        assert_eq!(redis.value().expect("an empty set"), 1);
        let told = redis.value().expect_err("an error");
        assert_eq!(told.to_string(), "redis-server answered \"-ERR no\"");
        assert!(redis.value().is_err(), "the end");
    }

    #[test]
    fn a_command_is_written_as_the_protocol_says() {
        let mut redis = client(b"");
        redis.command(&[b"SET", b"id", b"\r\n"]);
        assert_eq!(redis.out, b"*3\r\n$3\r\nSET\r\n$2\r\nid\r\n$2\r\n\r\n\r\n");
    }
}
