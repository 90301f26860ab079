//! Text that is no markup, whatever is in it, in each form.

use std::fmt::Write as _;

/// Text for Markdown, also within a table: nothing in it is markup, and it stays on one line.
pub(super) fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // what would make a link: a target behind brackets, and addresses that readers of Markdown link by themselves
        let links = match c {
            '(' | ':' | '[' if out.ends_with(']') => true,
            ':' => ["http", "https", "ftp", "mailto", "xmpp"].iter().any(|scheme| ends_with(&out, scheme)),
            '.' => ends_with(&out, "www"),
            '@' => true,
            _ => false,
        };
        if links {
            out.push('\\');
        }
        match c {
            '\\' | '`' | '*' | '_' | '|' | '#' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Whether a text ends with these small letters, whatever their case.
fn ends_with(text: &str, letters: &str) -> bool {
    let end = text.len().checked_sub(letters.len()).and_then(|at| text.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(letters))
}

/// Text for LaTeX, also as the first of a table's row.
pub(super) fn latex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, c) in text.chars().enumerate() {
        match c {
            // after a row's end a bracket would be an argument
            '[' if i == 0 => out.push_str("{[}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '|' => out.push_str("\\textbar{}"),
            'λ' => out.push_str("$\\lambda$"),
            'τ' => out.push_str("$\\tau$"),
            'Δ' => out.push_str("$\\Delta$"),
            '²' => out.push_str("$^2$"),
            '×' => out.push_str("$\\times$"),
            '±' => out.push_str("$\\pm$"),
            '≥' => out.push_str("$\\geq$"),
            '≤' => out.push_str("$\\leq$"),
            '≠' => out.push_str("$\\neq$"),
            'ρ' => out.push_str("$\\rho$"),
            'µ' | 'μ' => out.push_str("$\\mu$"),
            '−' => out.push_str("$-$"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Text in ASCII; what has no spelling becomes `?`.
pub(super) fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '–' | '—' | '−' => out.push('-'),
            '×' => out.push('x'),
            'λ' => out.push_str("lambda"),
            'τ' => out.push_str("tau"),
            'Δ' => out.push_str("dt"),
            '²' => out.push_str("^2"),
            'µ' | 'μ' => out.push('u'),
            '≥' => out.push_str(">="),
            '≤' => out.push_str("<="),
            '≠' => out.push_str("!="),
            'ρ' => out.push_str("rho"),
            '±' => out.push_str("+/-"),
            '…' => out.push_str("..."),
            '’' => out.push('\''),
            c if c.is_ascii_graphic() => out.push(c),
            c if c.is_whitespace() => out.push(' '),
            _ => out.push('?'),
        }
    }
    out
}

/// Text within a string of CSS, in a page.
pub(super) fn css(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // `<` must not end the element that the rules stand in
            '"' | '\\' | '<' | '>' | '\n' | '\r' => {
                let _ = write!(out, "\\{:x} ", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_markup() {
        assert_eq!(latex("[a] 50% & x_1 ~ λ ≠"), "{[}a] 50\\% \\& x\\_1 \\textasciitilde{} $\\lambda$ $\\neq$");
        assert_eq!(css("a\"b</style>"), "a\\22 b\\3c /style\\3e ");
        assert_eq!(markdown("a|b\n<c>"), "a\\|b &lt;c&gt;");
        assert_eq!(ascii("≠ ρ é"), "!= rho ?");
    }
}
