//! Where the articles of a text begin.
//!
//! An article begins with its title, a line ` = Title = ` between two empty lines; the titles of its sections have more
//! signs (` = = Section = = `). The empty line before the title belongs to the article.

/// An article of a text: it ends where the next one begins, or with the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Article {
    /// Byte offset of its first line.
    pub start: usize,
    /// Its title; `None` for lines before the first title.
    pub title: Option<String>,
}

/// The articles of a text, in order: together they are the whole text. None for an empty text.
#[must_use]
pub fn articles(text: &str) -> Vec<Article> {
    let mut found: Vec<Article> = Vec::new();
    let mut before: Option<(usize, &str)> = None;
    let mut open: Option<(usize, &str)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        // a title is one only if the line behind it is empty
        if let Some((start, title)) = open.take().filter(|_| line.trim().is_empty()) {
            found.push(Article { start, title: Some(title.to_owned()) });
        }
        if let Some(title) = title(line) {
            open = match before {
                None => Some((at, title)),
                Some((start, line)) if line.trim().is_empty() => Some((start, title)),
                Some(_) => None,
            };
        }
        before = Some((at, line));
        at += line.len();
    }
    if found.first().map_or(!text.is_empty(), |first| first.start > 0) {
        found.insert(0, Article { start: 0, title: None });
    }
    found
}

/// The title of an article in a line, if it is one.
fn title(line: &str) -> Option<&str> {
    let title = line.trim().strip_prefix("= ")?.strip_suffix(" =")?;
    (!title.trim().is_empty() && !title.starts_with("= ")).then_some(title)
}

/// The beginning of an article that is nearest to `share` of a text of `bytes` bytes; 0 and the end of the text count as
/// such.
#[must_use]
pub fn cut(articles: &[Article], bytes: usize, share: f64) -> usize {
    let wanted = share * bytes as f64;
    let starts = articles.iter().map(|article| article.start).chain([bytes]);
    let distance = |at: &usize| (*at as f64 - wanted).abs();
    starts.min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = " \n = One = \n \n a b . \n \n = = Section = = \n \n c = d . \n \n = Two = \n \n e . \n";

    #[test]
    fn sections_do_not_begin_an_article() {
        let found = articles(TEXT);
        let titles: Vec<_> = found.iter().map(|a| a.title.as_deref()).collect();
        assert_eq!(titles, [Some("One"), Some("Two")]);
        assert_eq!(&TEXT[found[1].start..], " \n = Two = \n \n e . \n");
    }

    #[test]
    fn what_stands_before_a_title_and_what_only_looks_like_one() {
        let text = " lost . \n = no title = \n \n x \n \n = none either = \n y \n \n = A = \n \n z \n";
        let found = articles(text);
        let titles: Vec<_> = found.iter().map(|a| a.title.as_deref()).collect();
        assert_eq!(titles, [None, Some("A")]);
        assert_eq!(articles(""), []);
        assert_eq!(articles("x").len(), 1);
    }

    #[test]
    fn cuts_lie_at_the_nearest_article() {
        let found = articles(TEXT);
        let second = found[1].start;
        for (share, expected) in
            [(0.0, 0), (0.3, 0), (0.6, second), (0.8, second), (0.95, TEXT.len()), (1.0, TEXT.len())]
        {
            assert_eq!(cut(&found, TEXT.len(), share), expected, "{share}");
        }
    }

    /// The published number of articles.
    #[test]
    fn the_real_splits_have_sixty_articles_each() {
        use crate::datasets::wikitext::{Split, read_split};
        let Some(data) = std::env::var_os("HARNESS_REAL_DATA").map(std::path::PathBuf::from) else {
            eprintln!("skipped: set HARNESS_REAL_DATA to a folder with wikitext-103/");
            return;
        };
        for split in [Split::Valid, Split::Test] {
            let text = read_split(&data.join("wikitext-103"), split).unwrap().bytes;
            let found = articles(std::str::from_utf8(&text).unwrap());
            assert_eq!((found.len(), found[0].start), (60, 0), "{}", split.name());
        }
    }
}
