//! Real throwaway servers on free ports, for tests and experiments.
