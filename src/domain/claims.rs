//! Pick-ups: who holds a conversation, within which service, and what another agent is told of it (R17–R20, B9–B11).

/// Most agents of one service that hold one conversation (contract: 32).
pub const HOLDERS_MAX: usize = 32;
/// Most claims shown to an agent or in a list (contract: 8), own first.
pub const CLAIMS_SHOWN_MAX: usize = 8;
/// Most warnings in one answer (contract: 8), own first.
pub const WARNINGS_MAX: usize = 8;
