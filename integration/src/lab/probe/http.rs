// SPDX-License-Identifier: Apache-2.0

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::Stop;
use crate::lab::Namespace;
use crate::lab::namespace::enter;

/// How long a server waits for the rest of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// An HTTP/1.1 server of one answer; it listens on every address of its namespace, over both families.
#[derive(Debug)]
pub struct HttpServer {
    stop: Stop,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: String,
    /// From the first packet to the last.
    pub elapsed: Duration,
}

impl HttpServer {
    /// Listens on `port` in `namespace`; `POST path` is answered with `body`, anything else with 404.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(namespace: &Namespace, port: u16, path: &str, body: &str) -> Result<Self> {
        let listener = namespace.run(|| listen(port))?;
        let stop = Stop::new()?;
        let called = stop.clone();
        let (netns, path, body) = (namespace.path().to_owned(), path.to_owned(), body.to_owned());
        let thread = std::thread::spawn(move || {
            enter(&netns)?;
            serve(&listener, &called, &path, &body)
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Listens where the calling process is, says `ready` on standard output, and answers as long as it lives.
    ///
    /// # Errors
    /// When the port is taken, or the socket fails.
    pub fn serve_for_life(port: u16, path: &str, body: &str) -> Result<()> {
        let listener = listen(port)?;
        std::io::stdout().write_all(b"ready\n")?;
        serve(&listener, &Stop::new()?, path, body)
    }

    /// Ends the server.
    ///
    /// # Errors
    /// When the socket failed before.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.stop.call();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the thread of a server panicked"))?
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.end().ok();
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("listen on port {port}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn serve(listener: &TcpListener, stop: &Stop, path: &str, body: &str) -> Result<()> {
    while stop.or_readable(listener)? {
        if let Ok((stream, _)) = listener.accept() {
            // A client that goes away in the middle of its request is its own loss.
            answer(&stream, path, body).ok();
        }
    }
    Ok(())
}

fn answer(stream: &TcpStream, path: &str, body: &str) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    drain_head_and_body(&mut reader)?;
    let wanted = request.split(' ').take(2).eq(["POST", path]);
    let (status, body) = if wanted { ("200 OK", body) } else { ("404 Not Found", "") };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    Ok((&*stream).write_all(format!("{head}{body}").as_bytes())?)
}

/// Reads header lines to the empty one, then as much of a body as they announce.
fn drain_head_and_body(reader: &mut impl BufRead) -> Result<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().context("read Content-Length")?;
        }
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    Ok(body)
}

/// Sends `POST path` from a namespace and reads the answer.
///
/// # Errors
/// When there is no connection or no whole answer within `patience`.
pub fn http_post(from: &Namespace, to: SocketAddr, path: &str, patience: Duration) -> Result<Reply> {
    let exchange = || -> Result<Reply> {
        let started = Instant::now();
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status)?;
        let status =
            status.split(' ').nth(1).context("no status line")?.parse().context("read the status")?;
        let body = drain_head_and_body(&mut reader)?;
        Ok(Reply { status, body, elapsed: started.elapsed() })
    };
    from.run(|| exchange().with_context(|| format!("POST http://{to}{path} from {}", from.name())))
}

/// Whether a TCP connection can be made.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn tcp_reaches(from: &Namespace, to: SocketAddr, patience: Duration) -> Result<bool> {
    from.run(|| Ok(TcpStream::connect_timeout(&to, patience).is_ok()))
}
