//! Upstream nodes: our key for them, and veneur-proxy's.

use std::path::Path;

use super::filled;
use crate::config::machine::Machine;
use crate::config::problem::Report;
use crate::config::raw::{Many, One, Raw};
use crate::config::reading::Given;
use crate::config::settings::ForwardFormat;
use crate::config::upstream::{SERVICE_ACCOUNT, UpstreamAddress};

const ONE_KEY: &str = "one of them, and forward_format for how it is written";

/// The addresses that were written.
pub(super) struct GivenUpstreams {
    /// Of any format.
    any: Vec<Given<String>>,
    /// Of gRPC servers.
    grpc: Vec<Given<String>>,
}

impl GivenUpstreams {
    /// Whether they are those of gRPC servers.
    pub(super) fn is_grpc(&self) -> bool {
        !self.grpc.is_empty()
    }
}

/// What veneur-proxy's keys and ours name. It parts what comes as JSON from what comes over
/// gRPC; here one ring takes everything, so that a series goes to one node however it came.
pub(super) fn given(raw: &Raw, machine: &Machine, report: &mut Report) -> GivenUpstreams {
    let mut any = listed(&raw.forward_address);
    any.extend(service(&raw.consul_forward_service_name, machine, report));
    let mut grpc = listed(&raw.grpc_forward_address);
    grpc.extend(service(&raw.consul_forward_grpc_service_name, machine, report));
    if let (Some(one), Some(other)) = (any.first(), grpc.first()) {
        let what = format!("set beside {}, but one ring takes everything here", one.source.key);
        report.refuse(&other.source, what, ONE_KEY);
    }
    GivenUpstreams { any, grpc }
}

/// The addresses, each once.
pub(super) fn parse(
    given: &GivenUpstreams,
    format: ForwardFormat,
    report: &mut Report,
) -> Vec<UpstreamAddress> {
    if let Some(grpc) = given.grpc.first()
        && !format.is_grpc()
    {
        let what = format!("set, but forward_format is {}", format.as_str());
        report.refuse(&grpc.source, what, "forward_address, or forward_format: grpc");
        return Vec::new();
    }
    let mut upstreams: Vec<UpstreamAddress> = Vec::new();
    for given in given.any.iter().chain(&given.grpc) {
        match UpstreamAddress::parse(&given.value, format.is_grpc()) {
            Ok(address) if upstreams.iter().any(|known| known.name() == address.name()) => {
                report.warn(&given.source, "listed twice; it counts once");
            }
            Ok(address) => upstreams.push(address),
            Err(accepted) => report.refuse(&given.source, "not an upstream address", accepted),
        }
    }
    upstreams
}

fn listed(given: &Many<String>) -> Vec<Given<String>> {
    let given = given.as_deref().unwrap_or_default();
    given.iter().filter(|given| !given.value.is_empty()).cloned().collect()
}

/// The address of a Consul service. In a pod veneur-proxy asks Kubernetes instead, whatever
/// the name.
fn service(given: &One<String>, machine: &Machine, report: &mut Report) -> Option<Given<String>> {
    let given = filled(given)?;
    let token = Path::new(SERVICE_ACCOUNT).join("token");
    let value = match (machine.read)(&token) {
        Ok(_) => {
            report.warn(
                &given.source,
                "in a pod, so pods with the label app=veneur-global are looked for, as \
                 veneur-proxy does; forward_address: consul+http://SERVICE asks Consul",
            );
            "kubernetes+http://".to_owned()
        }
        Err(_) => format!("consul+http://{}", given.value),
    };
    Some(Given { value, source: given.source.clone() })
}
