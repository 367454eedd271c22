//! One request, as far as it concerns us: the path that is asked for.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Response, Status};

/// No request that makes sense is longer, in bytes.
const REQUEST_MAX: usize = 16 * 1024;
/// Nor has more headers.
const HEADERS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Without a query.
    pub path: String,
    /// Only the head of the answer is wanted.
    pub is_head: bool,
}

/// Reads a request until it is whole; an answer in its place if it is none that we answer.
///
/// # Errors
/// If the client sends nothing for so long, or closes before it has asked.
pub(super) fn read(
    mut stream: &TcpStream,
    patience: Duration,
) -> io::Result<Result<Request, Response>> {
    let deadline = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
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

/// `None` as long as more is to come.
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
            let refusal = format!("this is no HTTP request: {error}");
            return Some(Err(Response::text(Status::BadRequest, &refusal)));
        }
    }
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => {
            let refusal = "pages here are only read";
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
    fn requests_and_what_is_none() {
        let get = |path: &str| {
            Some(Ok(Request {
                path: path.to_owned(),
                is_head: false,
            }))
        };
        let refused = |answer: Option<Result<Request, Response>>| match answer {
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
            "a query, a header and more behind it"
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
