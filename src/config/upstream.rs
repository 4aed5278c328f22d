//! Addresses of upstream nodes.

use std::fmt;

use super::listen::split_host_port;
use super::secret::{BASE_URL_FORMS, BaseUrl};

/// What the configuration accepts, in words.
pub const UPSTREAM_FORMS: &str = "http://HOST:PORT, https://HOST, dns+http://NAME:PORT, \
     dns+https://NAME:PORT, consul+http://SERVICE or kubernetes+http://APP";
/// The same where gRPC is spoken.
pub const GRPC_UPSTREAM_FORMS: &str = "HOST:PORT, http://HOST:PORT, https://HOST:PORT, \
     dns+http://NAME:PORT, dns+https://NAME:PORT, consul+http://SERVICE or kubernetes+http://APP";
/// What `consul+` takes, in words.
pub const CONSUL_FORMS: &str = "consul+http://SERVICE or consul+https://SERVICE";
/// What `kubernetes+` takes, in words.
pub const KUBERNETES_FORMS: &str = "kubernetes+http://APP or kubernetes+http://LABEL=VALUE, \
     with ?namespace=NAMESPACE behind it or without, or the same with https";

/// Where a pod finds its token and whom it may trust.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The label that veneur-proxy looks for.
const LABEL: &str = "app";
/// And its value.
const APP: &str = "veneur-global";

/// Where an upstream node is, or several that share a name.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    url: BaseUrl,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// `http://HOST:PORT`: one node.
    Url,
    /// `HOST:PORT`: one node, as Veneur 14 writes the address of a gRPC server.
    HostPort,
    /// Something before the URL says who knows the nodes.
    Discovered(Discovery),
}

/// Who knows the nodes that share a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// `dns+http://NAME:PORT`: there is one at each address of the name.
    Dns,
    /// `consul+http://SERVICE`: the instances of the service that pass their checks.
    Consul {
        /// Its name.
        service: String,
    },
    /// `kubernetes+http://APP`: the running pods with a label.
    Kubernetes {
        /// `NAME=VALUE`.
        label: String,
        /// `None`: all of them.
        namespace: Option<String>,
    },
}

impl UpstreamAddress {
    /// From the text of a configuration. `HOST:PORT` is an address only where `is_grpc`.
    ///
    /// # Errors
    /// What the text should have been.
    pub fn parse(text: &str, is_grpc: bool) -> Result<UpstreamAddress, &'static str> {
        let forms = if is_grpc { GRPC_UPSTREAM_FORMS } else { UPSTREAM_FORMS };
        if let Some(url) = text.strip_prefix("consul+") {
            return consul(url).ok_or(CONSUL_FORMS);
        }
        if let Some(url) = text.strip_prefix("kubernetes+") {
            return kubernetes(url).ok_or(KUBERNETES_FORMS);
        }
        let (url, form) = match text.strip_prefix("dns+") {
            Some(url) => (url.to_owned(), Form::Discovered(Discovery::Dns)),
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

    /// Where to connect: the URL that paths are put behind. Of nodes that Consul or Kubernetes
    /// knows, the host is the name that their certificates must be for.
    pub fn url(&self) -> &BaseUrl {
        &self.url
    }

    /// Who knows the nodes, if there may be several.
    pub fn discovery(&self) -> Option<&Discovery> {
        match &self.form {
            Form::Url | Form::HostPort => None,
            Form::Discovered(discovery) => Some(discovery),
        }
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
        match &self.form {
            Form::Url => url,
            Form::HostPort => url.strip_prefix("http://").unwrap_or(&url).to_owned(),
            Form::Discovered(Discovery::Dns) => format!("dns+{url}"),
            Form::Discovered(Discovery::Consul { .. }) => format!("consul+{url}"),
            Form::Discovered(Discovery::Kubernetes { label, namespace }) => {
                let scheme = url.split("://").next().unwrap_or_default();
                let namespace = namespace.as_deref().map(|name| format!("?namespace={name}"));
                format!("kubernetes+{scheme}://{label}{}", namespace.unwrap_or_default())
            }
        }
    }
}

/// `http://SERVICE`. A service name is a DNS label or close to one.
fn consul(url: &str) -> Option<UpstreamAddress> {
    let (_, service) = url.split_once("://")?;
    let is_name = is_word(service, "-_.");
    let discovery = Discovery::Consul { service: service.to_owned() };
    let url = BaseUrl::parse(url).ok().filter(|_| is_name)?;
    Some(UpstreamAddress { url, form: Form::Discovered(discovery) })
}

/// `http://[[LABEL=]VALUE][?namespace=NAMESPACE]`.
fn kubernetes(url: &str) -> Option<UpstreamAddress> {
    let (scheme, rest) = url.split_once("://")?;
    let (label, namespace) = match rest.split_once('?') {
        Some((label, query)) => (label, Some(query.strip_prefix("namespace=")?)),
        None => (rest, None),
    };
    let (label, value) = match label.split_once('=') {
        Some(pair) => pair,
        None if label.is_empty() => (LABEL, APP),
        None => (LABEL, label),
    };
    let is_complete = is_word(label, "-_./")
        && is_word(value, "-_.")
        && namespace.is_none_or(|name| is_word(name, "-"));
    let discovery = Discovery::Kubernetes {
        label: format!("{label}={value}"),
        namespace: namespace.map(str::to_owned),
    };
    let url = BaseUrl::parse(&format!("{scheme}://{value}")).ok().filter(|_| is_complete)?;
    Some(UpstreamAddress { url, form: Form::Discovered(discovery) })
}

/// Whether it is one or more ASCII letters, digits, and `others`.
fn is_word(text: &str, others: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
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
            assert_eq!(address.discovery().is_some(), text.starts_with("dns+"), "{text}");
        }
    }

    #[test]
    fn an_address_may_name_nodes_that_others_know() {
        let consul = |service: &str| Discovery::Consul { service: service.to_owned() };
        let kubernetes = |label: &str, namespace: Option<&str>| Discovery::Kubernetes {
            label: label.to_owned(),
            namespace: namespace.map(str::to_owned),
        };
        for (text, name, url, discovery) in [
            ("dns+http://g:1", "dns+http://g:1", "http://g:1", Discovery::Dns),
            ("consul+http://v-g", "consul+http://v-g", "http://v-g", consul("v-g")),
            ("consul+https://v_g.x", "consul+https://v_g.x", "https://v_g.x", consul("v_g.x")),
            (
                "kubernetes+http://",
                "kubernetes+http://app=veneur-global",
                "http://veneur-global",
                kubernetes("app=veneur-global", None),
            ),
            (
                "kubernetes+http://vg",
                "kubernetes+http://app=vg",
                "http://vg",
                kubernetes("app=vg", None),
            ),
            (
                "kubernetes+https://app.kubernetes.io/name=vg?namespace=m-1",
                "kubernetes+https://app.kubernetes.io/name=vg?namespace=m-1",
                "https://vg",
                kubernetes("app.kubernetes.io/name=vg", Some("m-1")),
            ),
        ] {
            let address = UpstreamAddress::parse(text, false).expect(text);
            assert_eq!(address.discovery(), Some(&discovery), "{text}");
            assert_eq!(address.url().reveal(), url, "{text}");
            assert_eq!([address.name(), address.redacted()], [name, name], "{text}");
            assert_eq!(UpstreamAddress::parse(name, true).as_ref(), Ok(&address), "{text}");
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
            ("consul+http://", false, CONSUL_FORMS),
            ("consul+http://s:1", false, CONSUL_FORMS),
            ("consul+http://u@s", false, CONSUL_FORMS),
            ("consul+s", true, CONSUL_FORMS),
            ("consul+grpc://s", true, CONSUL_FORMS),
            ("kubernetes+http://a=", false, KUBERNETES_FORMS),
            ("kubernetes+http://a b", false, KUBERNETES_FORMS),
            ("kubernetes+http://a?ns=b", false, KUBERNETES_FORMS),
            ("kubernetes+http://a?namespace=", false, KUBERNETES_FORMS),
            ("kubernetes+ftp://a", false, KUBERNETES_FORMS),
            ("http://g?x", false, "a URL without a query or fragment"),
        ] {
            assert_eq!(UpstreamAddress::parse(text, is_grpc), Err(accepted), "{text}");
        }
    }
}
