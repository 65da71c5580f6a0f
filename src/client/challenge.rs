//! `WWW-Authenticate`, read strictly (RFC 9110 §11.6.1): what does not parse asks for nothing.

use hyper::HeaderMap;
use hyper::header::WWW_AUTHENTICATE;

/// Longest field that is read, in bytes, and most parameters of one challenge.
const FIELD_MAX: usize = 8 << 10;
const PARAMS_MAX: usize = 16;

/// How a server wants us to say who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The challenges of an answer that we know how to meet, in its order.
pub(super) fn of(headers: &HeaderMap) -> Vec<Challenge> {
    let fields = headers.get_all(WWW_AUTHENTICATE).into_iter();
    let texts = fields.filter_map(|field| field.to_str().ok()).filter(|text| text.len() <= FIELD_MAX);
    texts.filter_map(|text| Reader { rest: text }.challenges()).flatten().collect()
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn challenges(mut self) -> Option<Vec<Challenge>> {
        let mut found = Vec::new();
        loop {
            self.separators();
            if self.rest.is_empty() {
                return Some(found);
            }
            let scheme = self.token()?;
            let mut params: Vec<(&str, String)> = Vec::new();
            if self.spaces() > 0 && !self.token68() {
                loop {
                    let before = self.rest;
                    let Some(param) = self.param() else {
                        // After a comma this may be the next challenge's scheme, and nothing else.
                        self.rest = before;
                        match params.is_empty() {
                            true if !before.is_empty() && !before.starts_with(',') => return None,
                            _ => break,
                        }
                    };
                    if params.len() == PARAMS_MAX
                        || params.iter().any(|(key, _)| key.eq_ignore_ascii_case(param.0))
                    {
                        return None;
                    }
                    params.push(param);
                    if !self.separators() {
                        break;
                    }
                }
            }
            if !self.rest.is_empty() && !self.at_next() {
                return None;
            }
            let param = |name: &str| {
                params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
            };
            match param("realm") {
                _ if scheme.eq_ignore_ascii_case("basic") => found.push(Challenge::Basic),
                Some(realm) if scheme.eq_ignore_ascii_case("bearer") => {
                    found.push(Challenge::Bearer { realm, service: param("service"), scope: param("scope") })
                }
                _ => {}
            }
        }
    }

    /// Whether what follows begins as a challenge does, a comma before it or read already.
    fn at_next(&self) -> bool {
        self.rest.starts_with(|c: char| c == ',' || is_token_char(c))
    }

    fn spaces(&mut self) -> usize {
        let before = self.rest.len();
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        before - self.rest.len()
    }

    /// Commas with spaces around them; whether there was a comma.
    fn separators(&mut self) -> bool {
        let before = self.rest;
        self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
        before[..before.len() - self.rest.len()].contains(',')
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self.rest.find(|c: char| !is_token_char(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    /// Skips credentials in the old shape, as `Negotiate` sends: nothing we know.
    fn token68(&mut self) -> bool {
        let is_char = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let text = self.rest.trim_start_matches(is_char).trim_start_matches('=');
        let ended = text.trim_start_matches([' ', '\t']);
        let fits = text.len() < self.rest.len() && (ended.is_empty() || ended.starts_with(','));
        if fits {
            self.rest = ended;
        }
        fits
    }

    fn param(&mut self) -> Option<(&'a str, String)> {
        let key = self.token()?;
        self.spaces();
        self.rest = self.rest.strip_prefix('=')?;
        self.spaces();
        let Some(quoted) = self.rest.strip_prefix('"') else {
            return Some((key, self.token()?.to_owned()));
        };
        let (mut value, mut escaped) = (String::new(), false);
        for (at, c) in quoted.char_indices() {
            match c {
                _ if escaped => {
                    value.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.rest = &quoted[at + 1..];
                    return Some((key, value));
                }
                c => value.push(c),
            }
        }
        None
    }
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn read(fields: &[&str]) -> Vec<Challenge> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(field).expect("a value"));
        }
        of(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) }
    }

    #[test]
    fn challenges_are_read_as_registries_send_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull,push""#;
        let expected = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:library/nginx:pull,push"),
        );
        assert_eq!(read(&[hub]), [expected]);
        assert_eq!(read(&[r#"Basic realm="Registry, \"the\" one""#]), [Challenge::Basic]);
        assert_eq!(read(&["basic"]), [Challenge::Basic]);
        let two = r#"Basic realm="x", BEARER realm="https://a/t" , service = s"#;
        assert_eq!(read(&[two]), [Challenge::Basic, bearer("https://a/t", Some("s"), None)]);
        assert_eq!(read(&["Negotiate", "Negotiate abc==, Basic realm=x"]), [Challenge::Basic]);
        assert_eq!(read(&[", ,Basic realm=x,,"]), [Challenge::Basic]);
    }

    #[test]
    fn what_does_not_parse_asks_for_nothing() {
        let long = format!("Bearer realm=\"{}\"", "x".repeat(FIELD_MAX));
        for bad in [
            "",
            "=",
            "Bearer realm=",
            "Bearer realm=\"x",
            "Bearer realm=\"x\\\"",
            "Bearer service=s",
            "\"Bearer\"",
            "Bearer realm=\"x\" service=\"y\"",
            "Bearer realm=x,realm=y",
            "Basic (realm)",
            "Basic realm=x;y",
            &long,
        ] {
            assert_eq!(read(&[bad]), [], "{bad:.80}");
        }
    }
}
