// SPDX-License-Identifier: Apache-2.0
//! One HTTP/1.1 answer, as far as a metadata service gives one (RFC 9112). Pure.

/// An answer of more bytes than this is refused.
pub(super) const MOST: usize = 64 * 1024;
/// A head of more bytes than this is refused.
const MOST_HEAD: usize = 8 * 1024;

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code, 100 to 999.
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Why bytes are no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// More than is taken.
    #[error("more than {MOST} bytes")]
    TooLong,
    /// The connection ended within the answer.
    #[error("the connection ended within the answer")]
    Truncated,
    /// This part is malformed.
    #[error("malformed {0}")]
    Syntax(&'static str),
    /// The body has a form of transfer that is not understood.
    #[error("a transfer coding, which metadata services do not use")]
    TransferCoding,
}

impl Response {
    /// The value of the first header with this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body; bytes that are no UTF-8 become U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads an answer; `None` when more bytes are needed. `ended`: there will be no more.
///
/// # Errors
/// [`ResponseError`]; more bytes would not help.
pub fn parse(bytes: &[u8], ended: bool) -> Result<Option<Response>, ResponseError> {
    if bytes.len() > MOST {
        return Err(ResponseError::TooLong);
    }
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return match (ended, bytes.len() > MOST_HEAD) {
            (true, _) => Err(ResponseError::Truncated),
            (false, true) => Err(ResponseError::TooLong),
            (false, false) => Ok(None),
        };
    };
    if end > MOST_HEAD {
        return Err(ResponseError::TooLong);
    }
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| ResponseError::Syntax("head"))?;
    let mut lines = head.split("\r\n");
    let status = status(lines.next().unwrap_or_default())?;
    let headers: Vec<(String, String)> = lines.map(header).collect::<Result<_, _>>()?;
    let body = &bytes[end + 4..];
    let values =
        |name: &'static str| headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value);
    if values("transfer-encoding").next().is_some() {
        return Err(ResponseError::TransferCoding);
    }
    let mut lengths = values("content-length").map(|value| length(value));
    let body = match lengths.next().transpose()? {
        Some(expected) => {
            if lengths.any(|other| other != Ok(expected)) {
                return Err(ResponseError::Syntax("content-length"));
            }
            match body.get(..expected) {
                Some(body) => body,
                None if ended => return Err(ResponseError::Truncated),
                None if expected > MOST => return Err(ResponseError::TooLong),
                None => return Ok(None),
            }
        }
        None if ended => body,
        None => return Ok(None),
    };
    Ok(Some(Response { status, headers, body: body.to_vec() }))
}

fn status(line: &str) -> Result<u16, ResponseError> {
    let wrong = ResponseError::Syntax("status line");
    let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
    let (code, _) = rest.map(|rest| rest.split_once(' ').unwrap_or((rest, ""))).ok_or(wrong.clone())?;
    let three = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    code.parse().ok().filter(|code| three && *code >= 100).ok_or(wrong)
}

fn header(line: &str) -> Result<(String, String), ResponseError> {
    let wrong = ResponseError::Syntax("header");
    let (name, value) = line.split_once(':').ok_or(wrong.clone())?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong);
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn length(value: &str) -> Result<usize, ResponseError> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or(ResponseError::Syntax("content-length"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Result<Option<Response>, ResponseError> {
        parse(text.as_bytes(), true)
    }

    #[test]
    fn an_answer_with_a_length_ends_there_and_one_without_at_the_end() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: b \r\n\r\nabcdef";
        let response = parse(text.as_bytes(), false).expect("good").expect("whole");
        assert_eq!((response.status, response.text().as_str()), (200, "abc"));
        assert_eq!(response.header("x-a"), Some("b"));
        let open = b"HTTP/1.0 404 Not Found\r\n\r\nabc";
        assert_eq!(parse(open, false), Ok(None));
        assert_eq!(parse(open, true).expect("good").expect("whole").text(), "abc");
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end], false), Ok(None), "{end}");
            assert_eq!(whole(&text[..end]), Err(ResponseError::Truncated), "{end}");
        }
    }

    #[test]
    fn malformed_answers_are_refused() {
        for (text, error) in [
            ("HTTP/2 200 OK\r\n\r\n", ResponseError::Syntax("status line")),
            ("HTTP/1.1 20 OK\r\n\r\n", ResponseError::Syntax("status line")),
            ("HTTP/1.1 +20 OK\r\n\r\n", ResponseError::Syntax("status line")),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", ResponseError::Syntax("header")),
            ("HTTP/1.1 200 OK\r\n: a\r\n\r\n", ResponseError::Syntax("header")),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ResponseError::Syntax("content-length")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
                ResponseError::Syntax("content-length"),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ResponseError::TransferCoding),
        ] {
            assert_eq!(whole(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_endless_answer_is_refused() {
        assert_eq!(parse(&vec![b'a'; MOST_HEAD + 1], false), Err(ResponseError::TooLong));
        assert_eq!(parse(&vec![b'a'; MOST + 1], false), Err(ResponseError::TooLong));
        let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", usize::MAX);
        assert_eq!(parse(huge.as_bytes(), false), Err(ResponseError::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_have_one_end(bytes in prop::collection::vec(any::<u8>(), 0..400), ended in any::<bool>()) {
            let answer = parse(&bytes, ended);
            prop_assert!(!ended || answer != Ok(None), "an ended answer is whole or an error");
        }

        #[test]
        fn near_answers_have_one_end(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "HTTP/1.1 200 OK", "HTTP/1.1 404 ", "\r\n", "\r\n\r\n", "Content-Length: ", "3", "abc", ":",
                    "Transfer-Encoding: x", "\n", "é",
                ]),
                0..12,
            ),
        ) {
            let text = parts.concat();
            // What is read from a part stays true when the rest comes.
            let whole = parse(text.as_bytes(), true);
            for end in 0..text.len() {
                if let Ok(Some(early)) = parse(&text.as_bytes()[..end], false) {
                    prop_assert_eq!(whole.clone(), Ok(Some(early)));
                }
            }
        }
    }
}
