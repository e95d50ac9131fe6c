//! Whole daemons, one at a time.

use anyhow::Result;

use super::{Arguments, Results};

/// Every daemon found, in rounds.
pub fn measure(_arguments: &Arguments, _results: &mut Results) -> Result<()> {
    Ok(())
}
