//! How many distinct members a set has: HyperLogLog with 2^14 registers.
//!
//! Members come in as 64-bit hashes ([`member_hash`]), so no text is kept. Up to 3072 members
//! are codes of 25 bits ([`sparse`]) and counted exactly but for rare twins; more of them are
//! 16384 registers with a standard error of 0.81 %. What a sketch is depends only on the
//! members it has seen, never on their order or on how sketches were merged. A new one
//! allocates nothing; none takes more than 16 KiB.
//!
//! Sources: Heule, Nunkesser and Hall, HyperLogLog in Practice (2013), for the sparse codes;
//! Ertl, New cardinality estimation algorithms for HyperLogLog sketches (2017), section 4,
//! for the estimate. The bytes are those of Veneur v14 ([`wire`]).

mod sparse;
mod stored;
pub mod wire;

use sparse::{Code, CodeSet, Full, SPARSE_PRECISION};

use super::metro;

pub use wire::CardinalityError;

/// Bits of a hash that choose a register.
const PRECISION: u32 = 14;
/// Registers of a dense sketch.
const REGISTERS: usize = 1 << PRECISION;
/// The largest rank a register can hold: all 50 bits behind the index are zero.
const MAX_RANK: u8 = (64 - PRECISION + 1) as u8;

/// The hash that makes members comparable between nodes: MetroHash64 with seed 1337, as in
/// Veneur v14. It is part of the wire format.
pub fn member_hash(member: &[u8]) -> u64 {
    metro::hash64(member, 1337)
}

/// A mergeable count of distinct members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cardinality(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Sparse(CodeSet),
    /// The largest rank seen for each index.
    Dense(Box<[u8; REGISTERS]>),
}

impl Default for Cardinality {
    fn default() -> Self {
        Cardinality(Form::Sparse(CodeSet::default()))
    }
}

impl Cardinality {
    /// No members; allocates nothing.
    pub fn new() -> Cardinality {
        Cardinality::default()
    }

    /// Adds the member with this hash; adding it again changes nothing.
    #[inline]
    pub fn insert_hash(&mut self, hash: u64) {
        match &mut self.0 {
            Form::Sparse(_) => self.insert_code(Code::of(hash)),
            Form::Dense(registers) => {
                let (index, rank) = register_of(hash);
                registers[index] = registers[index].max(rank);
            }
        }
    }

    /// Adds all members of `other`.
    pub fn merge(&mut self, other: &Cardinality) {
        match (&mut self.0, &other.0) {
            (_, Form::Sparse(codes)) => codes.iter().for_each(|code| self.insert_code(code)),
            (Form::Sparse(_), Form::Dense(theirs)) => {
                let ours = std::mem::replace(self, Cardinality(Form::Dense(theirs.clone())));
                self.merge(&ours);
            }
            (Form::Dense(ours), Form::Dense(theirs)) => {
                for (ours, theirs) in ours.iter_mut().zip(theirs.iter()) {
                    *ours = (*ours).max(*theirs);
                }
            }
        }
    }

    /// How many distinct members there are, about.
    pub fn estimate(&self) -> u64 {
        match &self.0 {
            Form::Sparse(codes) => {
                // Linear counting among 2^25 codes: a pair of members shares one rarely.
                let all = f64::from(1u32 << SPARSE_PRECISION);
                (all * (all / (all - codes.len() as f64)).ln()).round() as u64
            }
            Form::Dense(registers) => estimate_dense(registers).round() as u64,
        }
    }

    /// Whether no member was added.
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Form::Sparse(codes) if codes.len() == 0)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Sparse(codes) => codes.heap_bytes(),
            Form::Dense(_) => REGISTERS,
        }
    }

    fn insert_code(&mut self, code: Code) {
        match &mut self.0 {
            Form::Sparse(codes) => {
                if let Err(Full) = codes.insert(code) {
                    self.0 = Form::Dense(to_registers(codes));
                    self.insert_code(code);
                }
            }
            Form::Dense(registers) => {
                let (index, rank) = code.register();
                registers[index] = registers[index].max(rank);
            }
        }
    }
}

/// The register of a hash (its first 14 bits) and its rank there: one more than the number
/// of zeros that follow.
fn register_of(hash: u64) -> (usize, u8) {
    let stop = 1 << (PRECISION - 1);
    let rank = (hash << PRECISION | stop).leading_zeros() + 1;
    ((hash >> (64 - PRECISION)) as usize, rank as u8)
}

fn to_registers(codes: &CodeSet) -> Box<[u8; REGISTERS]> {
    let mut registers = Box::new([0; REGISTERS]);
    for code in codes.iter() {
        let (index, rank) = code.register();
        registers[index] = registers[index].max(rank);
    }
    registers
}

/// Ertl's improved raw estimator: no bias correction table and no switch between ranges.
fn estimate_dense(registers: &[u8; REGISTERS]) -> f64 {
    let mut count_of_rank = [0u32; MAX_RANK as usize + 1];
    for &rank in registers {
        count_of_rank[usize::from(rank)] += 1;
    }
    let m = REGISTERS as f64;
    let share = |rank: usize| f64::from(count_of_rank[rank]) / m;
    let last = usize::from(MAX_RANK);
    let mut sum = m * tau(1.0 - share(last));
    for rank in (1..last).rev() {
        sum = 0.5 * (sum + f64::from(count_of_rank[rank]));
    }
    sum += m * sigma(share(0));
    m * m / (2.0 * std::f64::consts::LN_2 * sum)
}

/// x + Σ x^(2^k)·2^(k-1): what registers that are still 0 contribute.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut power, mut sum) = (1.0, x);
    loop {
        x *= x;
        let next = sum + x * power;
        if next == sum {
            return sum;
        }
        sum = next;
        power += power;
    }
}

/// (1 - x - Σ (1 - x^(2^-k))²·2^-k) / 3: what registers at their largest rank contribute.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut power, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        power *= 0.5;
        let next = sum - (1.0 - x) * (1.0 - x) * power;
        if next == sum {
            return sum / 3.0;
        }
        sum = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_ids(ids: std::ops::Range<u32>) -> Cardinality {
        let mut sketch = Cardinality::new();
        for id in ids {
            sketch.insert_hash(member_hash(format!("user-{id}").as_bytes()));
        }
        sketch
    }

    #[test]
    fn up_to_a_thousand_members_are_counted_exactly() {
        for members in [0, 1, 2, 10, 100, 500, 1000] {
            assert_eq!(of_ids(0..members).estimate(), u64::from(members));
        }
    }

    #[test]
    fn a_sketch_depends_on_its_members_alone() {
        for (all, cut) in [(100, 50), (3000, 700), (4000, 10), (4000, 2000), (4000, 3990)] {
            let whole = of_ids(0..all);
            let (mut low, mut high) = (of_ids(0..cut), of_ids(cut / 2..all));
            low.merge(&high);
            assert_eq!(low, whole, "{all} members cut at {cut}");
            high.merge(&of_ids(0..cut));
            assert_eq!(high, whole, "{all} members cut at {cut}, the other way");
        }
    }
}
