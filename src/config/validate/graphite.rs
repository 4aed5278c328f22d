//! A Graphite sink.

use super::{choice, filled};
use crate::config::listen::split_host_port;
use crate::config::problem::Report;
use crate::config::settings::{
    EtsyNames, GraphiteAddress, GraphiteLayout, GraphiteProtocol, GraphiteSettings, SinkKind,
};
use crate::config::sinks::RawSink;

const FORMS: &str = "tcp://HOST:PORT, udp://HOST:PORT or HOST:PORT";
const LONGEST_PREFIX: usize = 200;

pub(in crate::config) fn sink(raw: &RawSink, report: &mut Report) -> Option<SinkKind> {
    let address = match filled(&raw.address) {
        Some(given) => {
            address(&given.value).map_err(|what| report.refuse(&given.source, what, FORMS)).ok()
        }
        None => {
            report.refuse(&raw.source, "a graphite sink without an address", FORMS);
            None
        }
    };
    let (protocols, layouts) = (GraphiteProtocol::ALL, GraphiteLayout::ALL);
    let protocol = choice(&raw.protocol, &protocols, GraphiteProtocol::as_str, report);
    if protocol == GraphiteProtocol::Pickle
        && let (Some(GraphiteAddress::Udp(_)), Some(given)) = (&address, &raw.protocol)
    {
        report.refuse(&given.source, "carbon takes no pickles in datagrams", "plaintext");
    }
    let prefix = filled(&raw.prefix).map_or("", |given| given.value.as_str());
    if let Some(given) = filled(&raw.prefix)
        && !is_prefix(prefix)
    {
        let accepted = "nodes joined by dots, of letters, digits, - and _";
        report.refuse(&given.source, "not a prefix", accepted);
    }
    let layout = choice(&raw.layout, &layouts, GraphiteLayout::as_str, report);
    let prefix = prefix.to_owned();
    // Those configured are put here when all is read.
    let names = EtsyNames::default();
    let address = address?;
    Some(SinkKind::Graphite(GraphiteSettings { address, protocol, layout, prefix, names }))
}

fn address(text: &str) -> Result<GraphiteAddress, String> {
    let (is_udp, host_port) = match text.split_once("://") {
        None => (false, text),
        Some(("tcp", rest)) => (false, rest),
        Some(("udp", rest)) => (true, rest),
        Some(_) => return Err("unknown scheme".to_owned()),
    };
    match split_host_port(host_port)? {
        (host, port) if !host.is_empty() && port > 0 => {}
        _ => return Err("no host or port to send to".to_owned()),
    }
    let host_port = host_port.to_owned();
    Ok(if is_udp { GraphiteAddress::Udp(host_port) } else { GraphiteAddress::Tcp(host_port) })
}

fn is_prefix(text: &str) -> bool {
    let is_node = |node: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !node.is_empty() && node.chars().all(is_part)
    };
    text.len() <= LONGEST_PREFIX && text.split('.').all(is_node)
}
