//! Reads one request: its method and path.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::response::{Response, Status};
use crate::listener::time_left;

/// Longer requests are refused, in bytes.
const REQUEST_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Without the query.
    pub path: String,
    /// A HEAD request: the response has no body.
    pub is_head: bool,
}

/// Reads a whole request; the inner error is the response to one that is not served.
///
/// # Errors
/// If the request is not complete in time, or the client closes before.
pub(super) fn read(
    mut stream: &TcpStream,
    timeout: Duration,
) -> io::Result<Result<Request, Response>> {
    let deadline = Instant::now() + timeout;
    let mut bytes = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..length]);
        if let Some(parsed) = parse(&bytes) {
            return Ok(parsed);
        }
    }
}

/// `None` while the request is incomplete.
fn parse(bytes: &[u8]) -> Option<Result<Request, Response>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            let refusal = Response::text(Status::TooLarge, "the request is too long");
            return Some(Err(refusal));
        }
        Err(error) => {
            let refusal = format!("not an HTTP request: {error}");
            return Some(Err(Response::text(Status::BadRequest, &refusal)));
        }
    }
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => {
            let refusal = "only GET and HEAD are supported";
            return Some(Err(Response::text(Status::MethodNotAllowed, refusal)));
        }
    };
    let target = request.path.unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    Some(Ok(Request { path, is_head }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_and_invalid_requests() {
        let get = |path: &str| {
            Some(Ok(Request {
                path: path.to_owned(),
                is_head: false,
            }))
        };
        let refused = |parsed: Option<Result<Request, Response>>| match parsed {
            Some(Err(response)) => Some(response.status),
            _ => None,
        };
        assert_eq!(
            parse(b"GET /metrics HTTP/1.1\r\n\r\n"),
            get("/metrics"),
            "the shortest"
        );
        assert_eq!(
            parse(b"GET /metrics?x=1 HTTP/1.0\r\nHost: a\r\n\r\nrest"),
            get("/metrics"),
            "a query, a header and trailing bytes"
        );
        let head = parse(b"HEAD / HTTP/1.1\r\n\r\n").unwrap().unwrap();
        assert!(head.is_head && head.path == "/");
        let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "cut after {cut} bytes");
        }
        let many: String = (0..100).map(|n| format!("H{n}: x\r\n")).collect();
        let endless = format!("GET / HTTP/1.1\r\nH: {}", "x".repeat(REQUEST_MAX));
        let rows = [
            (
                "another method",
                "POST / HTTP/1.1\r\n\r\n".to_owned(),
                Status::MethodNotAllowed,
            ),
            (
                "no HTTP",
                "\u{16}\u{3}\u{1}hello\r\n\r\n".to_owned(),
                Status::BadRequest,
            ),
            (
                "many headers",
                format!("GET / HTTP/1.1\r\n{many}\r\n"),
                Status::TooLarge,
            ),
            ("a header without an end", endless, Status::TooLarge),
        ];
        for (sentence, text, status) in rows {
            assert_eq!(refused(parse(text.as_bytes())), Some(status), "{sentence}");
        }
    }
}
