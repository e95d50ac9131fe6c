//! Text to tree, by descent.

use super::expression::Expression;

/// Deepest nesting of brackets: far beyond what a person writes, and little stack.
const DEPTH_MAX: usize = 256;

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: expected {expected}, found {found}")]
pub struct SelectorError {
    /// Where, in characters counted from 1.
    pub at: usize,
    /// What might have stood there.
    pub expected: &'static str,
    /// What stands there.
    pub found: String,
}

pub(super) fn parse(text: &str) -> Result<Expression, SelectorError> {
    let mut parser = Parser { text, rest: text, depth: 0 };
    parser.skip_blanks();
    if parser.rest.is_empty() {
        return Ok(Expression::All);
    }
    let expression = parser.or()?;
    parser.skip_blanks();
    if parser.rest.is_empty() { Ok(expression) } else { Err(parser.expected("&&, || or the end")) }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn or(&mut self) -> Result<Expression, SelectorError> {
        self.operands("||", Parser::and, Expression::Or)
    }

    fn and(&mut self) -> Result<Expression, SelectorError> {
        self.operands("&&", Parser::operand, Expression::And)
    }

    /// One operand is itself; several are what `joined` makes of them.
    fn operands(
        &mut self,
        between: &str,
        operand: fn(&mut Parser<'a>) -> Result<Expression, SelectorError>,
        joined: fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression, SelectorError> {
        let first = operand(self)?;
        let mut operands = vec![first];
        while self.take(between) {
            operands.push(operand(self)?);
        }
        Ok(if operands.len() > 1 { joined(operands) } else { operands.remove(0) })
    }

    fn operand(&mut self) -> Result<Expression, SelectorError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.expected("at most 256 levels of brackets"));
        }
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let operand = if self.take("(") {
            let inner = self.or()?;
            self.need(")", "a closing )")?;
            inner
        } else {
            self.primitive()?
        };
        self.depth -= 1;
        Ok(if negated { operand.negated() } else { operand })
    }

    fn primitive(&mut self) -> Result<Expression, SelectorError> {
        if self.take("has(") {
            let label = self.label()?;
            self.need(")", "a closing )")?;
            return Ok(Expression::Has(label));
        }
        for (word, expression) in [("all(", Expression::All), ("global(", Expression::Global)] {
            if self.take(word) {
                self.need(")", "a closing )")?;
                return Ok(expression);
            }
        }
        let label = self.label()?;
        self.comparison(label)
    }

    /// What stands behind a label.
    fn comparison(&mut self, label: String) -> Result<Expression, SelectorError> {
        if self.take("==") {
            return Ok(Expression::Equal(label, self.string()?));
        }
        if self.take("!=") {
            return Ok(Expression::NotEqual(label, self.string()?));
        }
        if self.take("contains") {
            return Ok(Expression::Contains(label, self.string()?));
        }
        if self.take_words("starts", "with") {
            return Ok(Expression::StartsWith(label, self.string()?));
        }
        if self.take_words("ends", "with") {
            return Ok(Expression::EndsWith(label, self.string()?));
        }
        if self.take_words("not", "in") {
            return Ok(Expression::NotIn(label, self.set()?));
        }
        if self.take("in") {
            return Ok(Expression::In(label, self.set()?));
        }
        Err(self.expected("==, !=, in, not in, contains, starts with or ends with"))
    }

    fn label(&mut self) -> Result<String, SelectorError> {
        self.skip_blanks();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
        let end = self.rest.find(|c| !legal(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.expected("a label, has(…), all(), global(), ! or ("));
        }
        let (label, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(label.to_owned())
    }

    fn string(&mut self) -> Result<String, SelectorError> {
        self.skip_blanks();
        let mut inside = self.rest.chars();
        let quote = inside.next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else { return Err(self.expected("a string in quotes")) };
        let Some((string, rest)) = inside.as_str().split_once(quote) else {
            return Err(self.expected("a string with its closing quote"));
        };
        self.rest = rest;
        Ok(string.to_owned())
    }

    /// `{…}`, sorted, each value once; a comma may stand behind the last.
    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        self.need("{", "a set in { }")?;
        let mut values = Vec::new();
        while !self.take("}") {
            values.push(self.string()?);
            if !self.take(",") {
                self.need("}", "a comma or a closing }")?;
                break;
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// Takes a word where it comes next.
    fn take(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes two words, with or without blanks between, where both come next.
    fn take_words(&mut self, first: &str, second: &str) -> bool {
        let before = self.rest;
        let taken = self.take(first) && self.take(second);
        if !taken {
            self.rest = before;
        }
        taken
    }

    fn need(&mut self, word: &str, expected: &'static str) -> Result<(), SelectorError> {
        if self.take(word) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        const SHOWN: usize = 16;
        let before = &self.text[..self.text.len() - self.rest.len()];
        let found = match self.rest.chars().take(SHOWN).collect::<String>() {
            nothing if nothing.is_empty() => "the end".to_owned(),
            some => format!("`{some}`"),
        };
        SelectorError { at: before.chars().count() + 1, expected, found }
    }
}
