//! A selector's one form in writing: equal selectors print alike, and what is printed parses to the same selector.

use std::fmt;

use super::Selector;
use super::expression::Expression;

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expression::All => f.write_str("all()"),
            Expression::Global => f.write_str("global()"),
            Expression::Has(label) => write!(f, "has({label})"),
            Expression::Equal(label, value) => write!(f, "{label} == {}", Quoted(value)),
            Expression::NotEqual(label, value) => write!(f, "{label} != {}", Quoted(value)),
            Expression::Contains(label, value) => write!(f, "{label} contains {}", Quoted(value)),
            Expression::StartsWith(label, value) => write!(f, "{label} starts with {}", Quoted(value)),
            Expression::EndsWith(label, value) => write!(f, "{label} ends with {}", Quoted(value)),
            Expression::In(label, values) => write!(f, "{label} in {}", Set(values)),
            Expression::NotIn(label, values) => write!(f, "{label} not in {}", Set(values)),
            Expression::Not(inner) => write!(f, "!{inner}"),
            Expression::And(operands) => joined(f, operands, " && "),
            Expression::Or(operands) => joined(f, operands, " || "),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, operands: &[Expression], between: &str) -> fmt::Result {
    f.write_str("(")?;
    for (number, operand) in operands.iter().enumerate() {
        let before = if number == 0 { "" } else { between };
        write!(f, "{before}{operand}")?;
    }
    f.write_str(")")
}

/// A string in the quotes that it doesn't hold itself; there is none that holds both.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a [String]);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (number, value) in self.0.iter().enumerate() {
            write!(f, "{}{}", if number == 0 { "" } else { ", " }, Quoted(value))?;
        }
        f.write_str("}")
    }
}
