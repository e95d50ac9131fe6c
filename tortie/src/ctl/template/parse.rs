//! Templates, read.

use super::{Node, Operand, Pipeline};

/// Nesting of `range`, `if` and `with`.
const MAX_DEPTH: usize = 32;

/// The nodes of a whole template.
pub(super) fn nodes(text: &str) -> Result<Vec<Node>, String> {
    let pieces = pieces(text)?;
    let mut reader = Reader { pieces: &pieces, next: 0, depth: 0 };
    let (nodes, end) = reader.nodes()?;
    match end {
        None => Ok(nodes),
        Some(word) => Err(format!("template: unexpected {{{{{word}}}}}")),
    }
}

/// Text, or what stands between braces.
#[derive(Debug)]
enum Piece {
    Text(String),
    Action(String),
}

fn pieces(mut text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut trim = false;
    while !text.is_empty() {
        let (before, rest) =
            text.split_once("{{").map_or((text, None), |(before, rest)| (before, Some(rest)));
        let mut plain = if trim { before.trim_start() } else { before };
        let Some(rest) = rest else {
            pieces.push(Piece::Text(plain.to_owned()));
            break;
        };
        let (action, after) = rest.split_once("}}").ok_or("template: unclosed action")?;
        let (trims_left, action) = action.strip_prefix("- ").map_or((false, action), |action| (true, action));
        let (trims_right, action) =
            action.strip_suffix(" -").map_or((false, action), |action| (true, action));
        if trims_left {
            plain = plain.trim_end();
        }
        pieces.push(Piece::Text(plain.to_owned()));
        if !action.trim().starts_with("/*") {
            pieces.push(Piece::Action(action.trim().to_owned()));
        }
        (trim, text) = (trims_right, after);
    }
    Ok(pieces)
}

struct Reader<'a> {
    pieces: &'a [Piece],
    next: usize,
    depth: usize,
}

impl Reader<'_> {
    /// Nodes up to `else` or `end`, which is given.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>), String> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.next) {
            self.next += 1;
            let action = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Piece::Action(action) => action,
            };
            let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
            match word {
                "end" | "else" => return Ok((nodes, Some(action.clone()))),
                "if" | "with" | "range" => nodes.push(self.block(word, rest)?),
                _ => nodes.push(Node::Print(pipeline(&tokens(action)?)?)),
            }
        }
        Ok((nodes, None))
    }

    fn block(&mut self, word: &str, head: &str) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("template: nested too deeply".to_owned());
        }
        let (then, end) = self.nodes()?;
        let otherwise = match end.as_deref() {
            Some("end") => Vec::new(),
            Some("else") => match self.nodes()? {
                (nodes, Some(end)) if end == "end" => nodes,
                _ => return Err("template: unexpected EOF".to_owned()),
            },
            Some(end) => match end.strip_prefix("else if ") {
                Some(head) => vec![self.block("if", head)?],
                None => return Err(format!("template: unexpected {{{{{end}}}}}")),
            },
            None => return Err("template: unexpected EOF".to_owned()),
        };
        self.depth -= 1;
        let tokens = tokens(head)?;
        Ok(match word {
            "range" => {
                let (names, over) = range_names(&tokens);
                Node::Range { names, over: pipeline(over)?, each: then, otherwise }
            }
            "with" => Node::With { value: pipeline(&tokens)?, then, otherwise },
            _ => Node::If { condition: pipeline(&tokens)?, then, otherwise },
        })
    }
}

/// `$i, $e := …`
fn range_names(tokens: &[String]) -> (Vec<String>, &[String]) {
    match tokens.iter().position(|token| token == ":=") {
        Some(end) => {
            let names = tokens[..end].iter().filter_map(|token| token.strip_prefix('$'));
            (names.map(|name| name.trim_end_matches(',').to_owned()).collect(), &tokens[end + 1..])
        }
        None => (Vec::new(), tokens),
    }
}

/// Words, texts in quotes, and marks.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' | '`' => closing(rest, first)?,
            '(' | ')' | '|' => 1,
            _ => rest
                .find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '|' | '"' | '`'))
                .unwrap_or(rest.len()),
        };
        tokens.push(rest[..end].to_owned());
        rest = &rest[end..];
        // Fields of what stands in parentheses belong to it.
        if !(first == ')' && rest.starts_with('.')) {
            rest = rest.trim_start();
        }
    }
    Ok(tokens)
}

fn closing(text: &str, quote: char) -> Result<usize, String> {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if letter == quote => return Ok(at + letter.len_utf8()),
            _ => {}
        }
    }
    Err("template: unterminated quoted string".to_owned())
}

fn pipeline(tokens: &[String]) -> Result<Pipeline, String> {
    let (name, tokens) = match tokens {
        [name, mark, rest @ ..] if mark == ":=" || mark == "=" => {
            (name.strip_prefix('$').map(str::to_owned), rest)
        }
        tokens => (None, tokens),
    };
    let mut commands = vec![Vec::new()];
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let operand = match token.as_str() {
            "|" => {
                commands.push(Vec::new());
                continue;
            }
            "(" => {
                let end = matching(&tokens[at..]).ok_or("template: unclosed left paren")?;
                let inner = pipeline(&tokens[at..at + end])?;
                at += end + 1;
                let fields = match tokens.get(at) {
                    Some(fields) if fields.starts_with('.') && fields.len() > 1 => {
                        at += 1;
                        path(fields)
                    }
                    _ => Vec::new(),
                };
                Operand::Nested(Box::new(inner), fields)
            }
            token => operand(token)?,
        };
        if let Some(command) = commands.last_mut() {
            command.push(operand);
        }
    }
    if commands.iter().any(Vec::is_empty) {
        return Err("template: missing value for command".to_owned());
    }
    Ok(Pipeline { name, commands })
}

/// Where the parenthesis closes that is open before these.
fn matching(tokens: &[String]) -> Option<usize> {
    let mut open = 1_usize;
    tokens.iter().position(|token| {
        match token.as_str() {
            "(" => open += 1,
            ")" => open -= 1,
            _ => {}
        }
        open == 0
    })
}

fn path(text: &str) -> Vec<String> {
    text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn operand(token: &str) -> Result<Operand, String> {
    if token.starts_with('.') {
        return Ok(Operand::Path(path(token)));
    }
    if let Some(variable) = token.strip_prefix('$') {
        let (name, fields) = variable.split_once('.').unwrap_or((variable, ""));
        return Ok(Operand::Variable(name.to_owned(), path(fields)));
    }
    if let Some(raw) = token.strip_prefix('`') {
        return Ok(Operand::Literal(raw.trim_end_matches('`').into()));
    }
    if token.starts_with('"') {
        let text = serde_json::from_str(token).map_err(|error| format!("template: {token}: {error}"))?;
        return Ok(Operand::Literal(text));
    }
    if let Ok(number) = token.parse::<i64>() {
        return Ok(Operand::Literal(number.into()));
    }
    Ok(match token {
        "true" => Operand::Literal(true.into()),
        "false" => Operand::Literal(false.into()),
        word => Operand::Word(word.to_owned()),
    })
}
