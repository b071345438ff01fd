//! What leaves after a commit.

pub mod relay;
