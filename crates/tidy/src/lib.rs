//! The house's rules, made executable: see `tests/`. Nothing else lives here.
