//! The ledger of a daemon, from its `/metrics`: what came in is what went out, what is kept and
//! what was dropped, for each kind of thing.
#![allow(dead_code, reason = "each test binary uses the part it needs")]

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;

/// The counters of one moment.
#[derive(Clone, Debug)]
pub(crate) struct Page(String);

/// A sum of series: of this family, with this in their labels, without that.
type Term = (&'static str, &'static str, &'static str);

/// One kind of thing, and where it may be.
struct Account {
    of: &'static str,
    came: &'static [Term],
    went: &'static [Term],
}

const fn all(family: &'static str) -> Term {
    (family, "", "")
}

/// What holds at any moment without a flush, a request or an unread datagram under way.
const ACCOUNTS: &[Account] = &[
    Account {
        of: "lines",
        came: &[all("veneur_listen_lines_total")],
        went: &[
            all("veneur_listen_metrics_total"),
            all("veneur_listen_events_total"),
            all("veneur_listen_checks_total"),
            // What was refused before it was looked at is not a line.
            ("veneur_packet_error_total", "", "packet_type=\"unknown\""),
        ],
    },
    Account {
        of: "samples",
        came: &[all("veneur_listen_samples_total")],
        went: &[
            all("veneur_worker_metrics_processed_total"),
            all("veneur_mapping_dropped_total"),
            all("veneur_router_dropped_total"),
        ],
    },
    Account {
        of: "events",
        came: &[all("veneur_listen_events_total")],
        went: &[
            all("veneur_worker_events_flushed_total"),
            ("veneur_collector_dropped_total", "type=\"event\"", ""),
        ],
    },
    Account {
        of: "service checks",
        came: &[all("veneur_listen_checks_total")],
        went: &[
            all("veneur_worker_checks_flushed_total"),
            all("veneur_collector_replaced_total"),
            ("veneur_collector_dropped_total", "type=\"check\"", ""),
        ],
    },
    Account {
        of: "points, events and checks at sinks",
        came: &[
            all("veneur_sink_metrics_offered_total"),
            all("veneur_sink_events_offered_total"),
            all("veneur_sink_checks_offered_total"),
            ("veneur_spool_found_total", "", "spool=\"forward\""),
        ],
        went: &[
            all("veneur_sink_metrics_flushed_total"),
            all("veneur_sink_events_flushed_total"),
            all("veneur_sink_checks_flushed_total"),
            all("veneur_sink_metrics_skipped_total"),
            all("veneur_sink_events_skipped_total"),
            all("veneur_sink_checks_skipped_total"),
            all("veneur_sink_metrics_dropped_total"),
            all("veneur_sink_events_dropped_total"),
            all("veneur_sink_checks_dropped_total"),
            ("veneur_spool_items", "", "spool=\"forward\""),
        ],
    },
    Account {
        of: "forwarded entries",
        came: &[
            all("veneur_forward_entries_offered_total"),
            ("veneur_spool_found_total", "spool=\"forward\"", ""),
        ],
        went: &[
            all("veneur_forward_entries_delivered_total"),
            all("veneur_forward_entries_dropped_total"),
            all("veneur_forward_queue_entries"),
            ("veneur_spool_items", "spool=\"forward\"", ""),
        ],
    },
];

/// Of a daemon, which merges what other nodes send it.
const MERGED: Account = Account {
    of: "imported entries",
    came: &[all("veneur_import_metrics_total")],
    went: &[all("veneur_worker_metrics_imported_total")],
};

/// Of a proxy, which passes it on.
const PASSED_ON: Account = Account {
    of: "imported entries",
    came: &[all("veneur_import_metrics_total")],
    went: &[all("veneur_forward_entries_offered_total")],
};

/// A sum that is not right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Imbalance {
    pub(crate) of: &'static str,
    came: u64,
    went: u64,
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Imbalance { of, came, went } = self;
        write!(f, "{of}: {came} came, {went} went, are kept or were dropped")
    }
}

impl Page {
    /// The page of the daemon whose HTTP server is there.
    ///
    /// # Errors
    /// What the connection says.
    pub(crate) fn read(http: &str) -> std::io::Result<Page> {
        let mut stream = TcpStream::connect(http)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(Page(page))
    }

    /// The sum of all series of a family whose labels contain `label`.
    pub(crate) fn sum(&self, family: &str, label: &str) -> u64 {
        self.sum_of((family, label, ""))
    }

    fn sum_of(&self, (family, with, without): (&str, &str, &str)) -> u64 {
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(family).filter(|rest| rest.starts_with(['{', ' ']))?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let is_one = labels.contains(with) && (without.is_empty() || !labels.contains(without));
            is_one.then(|| value.parse::<f64>().ok()).flatten()
        });
        values.sum::<f64>() as u64
    }

    /// What does not add up at a daemon.
    pub(crate) fn imbalances(&self) -> Vec<Imbalance> {
        self.imbalances_with(&MERGED)
    }

    /// What does not add up at a proxy.
    pub(crate) fn imbalances_of_proxy(&self) -> Vec<Imbalance> {
        self.imbalances_with(&PASSED_ON)
    }

    fn imbalances_with(&self, imported: &Account) -> Vec<Imbalance> {
        let sum = |terms: &[Term]| terms.iter().map(|&term| self.sum_of(term)).sum();
        let accounts = ACCOUNTS.iter().chain([imported]).map(|account| {
            let Account { of, came, went } = account;
            Imbalance { of, came: sum(came), went: sum(went) }
        });
        accounts.filter(|Imbalance { came, went, .. }| came != went).collect()
    }
}
