//! Addresses of upstream nodes.

use std::fmt;

use super::listen::split_host_port;
use super::secret::{BASE_URL_FORMS, BaseUrl};

/// What the configuration accepts, in words.
pub const UPSTREAM_FORMS: &str =
    "http://HOST:PORT, https://HOST, dns+http://NAME:PORT or dns+https://NAME:PORT";
/// The same where gRPC is spoken.
pub const GRPC_UPSTREAM_FORMS: &str = "HOST:PORT, http://HOST:PORT, https://HOST:PORT, \
                                       dns+http://NAME:PORT or dns+https://NAME:PORT";

/// Where an upstream node is, or several that share a name.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    url: BaseUrl,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `http://HOST:PORT`: one node.
    Url,
    /// `HOST:PORT`: one node, as Veneur 14 writes the address of a gRPC server.
    HostPort,
    /// `dns+http://NAME:PORT`: a node at each address of the name.
    EveryAddress,
}

impl UpstreamAddress {
    /// From the text of a configuration. `HOST:PORT` is an address only where `is_grpc`.
    ///
    /// # Errors
    /// What the text should have been.
    pub fn parse(text: &str, is_grpc: bool) -> Result<UpstreamAddress, &'static str> {
        let forms = if is_grpc { GRPC_UPSTREAM_FORMS } else { UPSTREAM_FORMS };
        let (url, form) = match text.strip_prefix("dns+") {
            Some(url) => (url.to_owned(), Form::EveryAddress),
            None if is_grpc && !text.contains("://") => {
                let is_complete =
                    split_host_port(text).is_ok_and(|(host, port)| !host.is_empty() && port > 0);
                if !is_complete {
                    return Err(forms);
                }
                (format!("http://{text}"), Form::HostPort)
            }
            None => (text.to_owned(), Form::Url),
        };
        let url = BaseUrl::parse(&url)
            .map_err(|accepted| if accepted == BASE_URL_FORMS { forms } else { accepted })?;
        Ok(UpstreamAddress { url, form })
    }

    /// Where to connect: the URL that paths are put behind.
    pub fn url(&self) -> &BaseUrl {
        &self.url
    }

    /// Whether each address of the host is a node of its own.
    pub fn is_every_address(&self) -> bool {
        self.form == Form::EveryAddress
    }

    /// The address as written, without user, password and trailing slash: what logs and own
    /// metrics call the node, and what stands for it on the ring.
    pub fn name(&self) -> String {
        self.written(|url| match url.split_once("://") {
            Some((scheme, rest)) => match rest.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://{host}"),
                None => url.to_owned(),
            },
            None => url.to_owned(),
        })
    }

    /// The address as written, user and password hidden.
    pub fn redacted(&self) -> String {
        self.written(|_| self.url.redacted())
    }

    fn written(&self, url: impl Fn(&str) -> String) -> String {
        let url = url(self.url.reveal());
        match self.form {
            Form::Url => url,
            Form::HostPort => url.strip_prefix("http://").unwrap_or(&url).to_owned(),
            Form::EveryAddress => format!("dns+{url}"),
        }
    }
}

impl fmt::Debug for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_url_a_name_and_what_is_shown_of_it() {
        for (text, url, name, shown) in [
            ("http://g:8127/", "http://g:8127", "http://g:8127", "http://g:8127"),
            ("https://g/base", "https://g/base", "https://g/base", "https://g/base"),
            ("http://u:p@g:1", "http://u:p@g:1", "http://g:1", "http://REDACTED@g:1"),
            ("dns+http://g:1", "http://g:1", "dns+http://g:1", "dns+http://g:1"),
            ("g:8128", "http://g:8128", "g:8128", "g:8128"),
            ("[::1]:8128", "http://[::1]:8128", "[::1]:8128", "[::1]:8128"),
        ] {
            let address = UpstreamAddress::parse(text, true).expect("the table holds good ones");
            assert_eq!(address.url().reveal(), url);
            assert_eq!(address.name(), name);
            assert_eq!(address.redacted(), shown);
            assert_eq!(address.is_every_address(), text.starts_with("dns+"), "{text}");
        }
    }

    #[test]
    fn an_address_is_refused_when() {
        for (text, is_grpc, accepted) in [
            ("g:8128", false, UPSTREAM_FORMS),
            ("g", true, GRPC_UPSTREAM_FORMS),
            (":8128", true, GRPC_UPSTREAM_FORMS),
            ("g:0", true, GRPC_UPSTREAM_FORMS),
            ("dns+g:8128", true, GRPC_UPSTREAM_FORMS),
            ("dns+ftp://g", false, UPSTREAM_FORMS),
            ("tcp://g:1", true, GRPC_UPSTREAM_FORMS),
            ("http://g?x", false, "a URL without a query or fragment"),
        ] {
            assert_eq!(UpstreamAddress::parse(text, is_grpc), Err(accepted), "{text}");
        }
    }
}
