//! A client that costs little: one connection, kept, and no more of HTTP than our answers have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Result;

/// An answer that takes longer than this is a failure of the benchmark.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Client {
    stream: TcpStream,
    /// What every request has beside its first line, up to the Content-Length.
    headers: String,
    /// What was read beyond the last answer, and room for the next.
    buffer: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    /// With names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// A client that brings these credentials with every request; none for nobody.
    pub fn new(address: SocketAddr, user: Option<(&str, &str)>, more: &[(&str, &str)]) -> Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut headers = format!("Host: {address}\r\nAccept: */*\r\n");
        if let Some((name, password)) = user {
            let credentials = STANDARD.encode(format!("{name}:{password}"));
            headers.push_str(&format!("Authorization: Basic {credentials}\r\n"));
        }
        for (name, value) in more {
            headers.push_str(&format!("{name}: {value}\r\n"));
        }
        Ok(Client { stream, headers, buffer: Vec::new() })
    }

    pub fn get(&mut self, target: &str) -> Result<Answer> {
        self.send("GET", target, b"")
    }

    pub fn send(&mut self, method: &str, target: &str, body: &[u8]) -> Result<Answer> {
        let length = match method {
            "GET" => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let mut request = format!("{method} {target} HTTP/1.1\r\n{}{length}\r\n", self.headers).into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request)?;
        self.answer()
    }

    /// Reads one answer. All of ours say how long they are.
    fn answer(&mut self) -> Result<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().parse()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length: usize = answer.header("content-length").unwrap_or("0").parse()?;
        while self.buffer.len() < end + length {
            self.read_more()?;
        }
        answer.body = self.buffer[end..end + length].to_vec();
        self.buffer.drain(..end + length);
        Ok(answer)
    }

    fn read_more(&mut self) -> Result<()> {
        let mut piece = [0; 64 << 10];
        match self.stream.read(&mut piece)? {
            0 => Err("the server closed the connection".into()),
            read => {
                self.buffer.extend_from_slice(&piece[..read]);
                Ok(())
            }
        }
    }
}
