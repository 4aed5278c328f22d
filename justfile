# Thin names for the commands of README.md.

# Listens on loopback and prints each flush.
run *ARGUMENTS:
    cargo run --release -- -f example.yaml {{ARGUMENTS}}

# Everything that is checked before something is kept.
test:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo test

# Trouble for so many minutes, at 30,000 metrics a second.
soak MINUTES="30":
    cargo bench --bench soak -- {{MINUTES}}

# One fuzz target for so many seconds (fuzz/README.md).
fuzz TARGET SECONDS="600":
    cargo fuzz run -s none {{TARGET}} fuzz/corpus/{{TARGET}} fuzz/seeds/{{TARGET}} -- -max_total_time={{SECONDS}}

# One of benches/, or all.
bench *NAMES="parse stages digest encode flush import forward outage flood takeover ingest_e2e":
    for name in {{NAMES}}; do cargo bench --bench $name || exit 1; done
