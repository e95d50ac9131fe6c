//! The order in which tiers and policies are asked.

use std::cmp::Ordering;
use std::fmt;

/// A tier's or policy's `spec.order`: lower is asked first. Never NaN, and a zero has no sign, so orders compare as
/// numbers do.
#[derive(Clone, Copy, Debug)]
pub struct Order(f64);

impl Order {
    /// After all others: the order of what gives none.
    pub const LAST: Order = Order(f64::INFINITY);

    /// `None` where it isn't a number.
    pub fn new(order: f64) -> Option<Order> {
        // Adding zero takes the sign off a zero.
        (!order.is_nan()).then_some(Order(order + 0.0))
    }

    /// The number; infinite for [`Order::LAST`].
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for Order {
    fn default() -> Order {
        Order::LAST
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Order) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Order) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Order) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Order::LAST { f.pad("last") } else { write!(f, "{}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_compare_as_numbers_and_what_gives_none_comes_last() {
        let order = |number| Order::new(number).unwrap();
        assert!(order(-1.0) < order(0.5) && order(0.5) < order(1e300) && order(1e300) < Order::LAST);
        assert_eq!(order(-0.0), order(0.0));
        assert_eq!(Order::new(f64::NAN), None);
        assert_eq!(
            [order(100.0), order(0.5), Order::default()].map(|o| o.to_string()),
            ["100", "0.5", "last"]
        );
    }
}
