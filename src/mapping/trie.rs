//! All globs of a mapping as one tree: a level for each part between dots.

use std::collections::HashMap;

use super::MappedType;

/// Asked for a name it visits a node at most once, whatever the name.
#[derive(Clone, Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// Whether the most specific one wins, rather than the first one.
    disable_ordering: bool,
}

#[derive(Clone, Debug)]
struct Node {
    parts: HashMap<Box<str>, usize>,
    star: Option<usize>,
    /// The rules whose glob ends here, the first one first.
    rules: Vec<(usize, Option<MappedType>)>,
    /// The first rule that ends here or below.
    first: usize,
}

impl Node {
    fn new() -> Node {
        Node { parts: HashMap::new(), star: None, rules: Vec::new(), first: usize::MAX }
    }
}

impl Trie {
    pub(super) fn new(disable_ordering: bool) -> Trie {
        Trie { nodes: vec![Node::new()], disable_ordering }
    }

    /// Rules come in the order of the file.
    pub(super) fn add(&mut self, glob: &str, rule: usize, only: Option<MappedType>) {
        let mut at = 0;
        for part in glob.split('.') {
            self.nodes[at].first = self.nodes[at].first.min(rule);
            let next = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match part {
                "*" => *node.star.get_or_insert(next),
                part => *node.parts.entry(part.into()).or_insert(next),
            };
            if at == next {
                self.nodes.push(Node::new());
            }
        }
        let node = &mut self.nodes[at];
        node.first = node.first.min(rule);
        node.rules.push((rule, only));
    }

    pub(super) fn find(&self, name: &str, of: Option<MappedType>) -> Option<usize> {
        // What is still to be looked at, and the part of the name that comes next.
        let mut open = vec![(0, Some(name))];
        let mut best = None;
        while let Some((at, rest)) = open.pop() {
            let node = &self.nodes[at];
            if best.is_some_and(|best| node.first > best) {
                continue;
            }
            let Some(rest) = rest else {
                let rule = node.rules.iter().find(|(_, only)| only.is_none() || *only == of);
                if let Some(&(rule, _)) = rule {
                    if self.disable_ordering {
                        return Some(rule);
                    }
                    best = Some(best.map_or(rule, |best: usize| best.min(rule)));
                }
                continue;
            };
            let (part, rest) = match rest.split_once('.') {
                Some((part, rest)) => (part, Some(rest)),
                None => (rest, None),
            };
            // What is said last is looked at first.
            open.extend(node.star.map(|star| (star, rest)));
            open.extend(node.parts.get(part).map(|&exact| (exact, rest)));
        }
        best
    }
}
