//! What the points of a series are called in Graphite, and which values they have there.
//!
//! | Layout | Path | Counters |
//! |---|---|---|
//! | `veneur` | `NAME;tag=value`, `NAME.max;tag=value`: the names that every sink has | how much was counted |
//! | `etsy` | `stats.timers.NAME.max;tag=value`, as etsy's statsd is configured | a second, and beside it how much |
//! | `brubeck` | `NAME.max`: names as they were sent | how much was counted |
//!
//! The last two are for those who had these daemons: what carbon would take of a name stays, and a
//! series has the tags that it was sent with, in their order, but no host.
//!
//! Below the prefix in each.

use std::sync::Arc;

use super::layout::Layout;
use super::path::{LONGEST_PATH, Tags, push_name};
use crate::config::settings::{GraphiteLayout, GraphiteSettings};
use crate::model::{FlushBatch, MetricKey, Point};
use crate::sinks::Node;
use crate::sinks::labels::Labels;

/// Names points, one after the other. Those of one series should stand together.
pub struct Renderer<'a> {
    layout: Layout,
    /// Whether names are to be those that another daemon would give.
    is_classic: bool,
    /// With a dot behind it, or empty.
    prefix: String,
    /// Whose host and tags every series has.
    node: &'a Node,
    series: Option<Arc<MetricKey>>,
    labels: Labels,
    /// `;tag=value;tag=value`
    tags: Vec<u8>,
    path: Vec<u8>,
}

impl<'a> Renderer<'a> {
    /// For a sink of this node.
    pub fn new(settings: &GraphiteSettings, node: &'a Node) -> Renderer<'a> {
        let mut prefix = settings.prefix.clone();
        if !prefix.is_empty() {
            prefix.push('.');
        }
        Renderer {
            layout: Layout::of(settings),
            is_classic: match settings.layout {
                GraphiteLayout::Veneur => false,
                GraphiteLayout::Etsy | GraphiteLayout::Brubeck => true,
            },
            prefix,
            node,
            series: None,
            labels: Labels::default(),
            tags: Vec::new(),
            path: Vec::new(),
        }
    }

    /// Calls `each` with every path and value of a point. `false` if some of it cannot be written:
    /// a path would be too long, or the time is before 1970.
    pub fn render(
        &mut self,
        batch: &FlushBatch,
        point: &Point,
        mut each: impl FnMut(&[u8], f64),
    ) -> bool {
        // Carbon takes -1 for now.
        if point.at.0 < 0 {
            return false;
        }
        if !self.series.as_ref().is_some_and(|key| Arc::ptr_eq(key, &point.key)) {
            self.describe(&point.key);
        }
        let (name, suffix) = batch.name_of(point);
        let seconds = batch.interval.as_secs_f64();
        for named in self.layout.names(point.key.kind, point.value, seconds) {
            self.path.clear();
            self.path.extend_from_slice(self.prefix.as_bytes());
            self.path.extend_from_slice(named.prefix.as_bytes());
            if !push_name(&mut self.path, name, self.is_classic) {
                return false;
            }
            // These are ours: `.max`, `.99.9percentile`.
            for part in [suffix, named.behind, self.layout.ending()] {
                self.path.extend_from_slice(part.as_bytes());
            }
            self.path.extend_from_slice(&self.tags);
            if self.path.len() > LONGEST_PATH {
                return false;
            }
            each(&self.path, named.value);
        }
        true
    }

    fn describe(&mut self, key: &Arc<MetricKey>) {
        match self.is_classic {
            true => self.labels.describe_as_sent::<Tags>(key, self.node),
            false => self.labels.describe::<Tags>(key, self.node),
        }
        self.tags.clear();
        for (key, value) in self.labels.iter() {
            self.tags.push(b';');
            self.tags.extend_from_slice(key);
            self.tags.push(b'=');
            self.tags.extend_from_slice(value);
        }
        self.series = Some(Arc::clone(key));
    }
}
