//! From a step's outputs to labels: the best path, or the best labelling that a beam of prefixes finds.

use std::collections::{BTreeMap, HashMap};

/// The labels of the best path (Graves et al. 2006, section 3.2): the largest output of each step, repeats merged, blanks
/// left out. `logits` is `[T, outputs]`.
#[must_use]
pub fn greedy(logits: &[f32], outputs: usize, blank: u32) -> Vec<u32> {
    let mut labels = Vec::new();
    let mut last = blank;
    for row in logits.chunks_exact(outputs.max(1)) {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        let label = best.map_or(blank, |(label, _)| label as u32);
        if label != blank && label != last {
            labels.push(label);
        }
        last = label;
    }
    labels
}

/// `ln(e^a + e^b)`.
fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// Log-probabilities of a prefix by how its paths end.
#[derive(Clone, Copy)]
struct Ends {
    blank: f64,
    label: f64,
}

impl Ends {
    const NEVER: Self = Self { blank: f64::NEG_INFINITY, label: f64::NEG_INFINITY };

    fn total(self) -> f64 {
        log_add(self.blank, self.label)
    }
}

/// All prefixes that were met, as a tree: each is its parent and one label more.
struct Prefixes {
    nodes: Vec<(usize, u32)>,
    children: HashMap<(usize, u32), usize>,
}

impl Prefixes {
    /// The empty prefix.
    const ROOT: usize = 0;

    fn child(&mut self, parent: usize, label: u32) -> usize {
        let next = self.nodes.len();
        let node = *self.children.entry((parent, label)).or_insert(next);
        if node == next {
            self.nodes.push((parent, label));
        }
        node
    }

    fn last(&self, node: usize) -> Option<u32> {
        self.nodes.get(node).filter(|_| node != Self::ROOT).map(|n| n.1)
    }

    fn labels(&self, mut node: usize) -> Vec<u32> {
        let mut labels = Vec::new();
        while let Some(&(parent, label)) = self.nodes.get(node).filter(|_| node != Self::ROOT) {
            labels.push(label);
            node = parent;
        }
        labels.reverse();
        labels
    }
}

/// The most probable labelling that prefix beam search of `width` prefixes finds, without a language model, and its
/// log-probability as far as the beam kept its paths (Hannun et al. 2014, arXiv:1408.2873). `logits` is `[T, outputs]`.
#[must_use]
pub fn beam(logits: &[f32], outputs: usize, blank: u32, width: usize) -> (Vec<u32>, f64) {
    let mut prefixes = Prefixes { nodes: vec![(Prefixes::ROOT, blank)], children: HashMap::new() };
    let mut kept = vec![(Prefixes::ROOT, Ends { blank: 0.0, label: f64::NEG_INFINITY })];
    for row in logits.chunks_exact(outputs.max(1)) {
        let max = row.iter().fold(f32::NEG_INFINITY, |m, &z| m.max(z));
        let log_sum = f64::from(max) + row.iter().map(|&z| f64::from(z - max).exp()).sum::<f64>().ln();
        let mut next: BTreeMap<usize, Ends> = BTreeMap::new(); // in the order of discovery: ties are broken alike
        for &(node, ends) in &kept {
            let last = prefixes.last(node);
            for (label, &z) in row.iter().enumerate() {
                let (label, log_p) = (label as u32, f64::from(z) - log_sum);
                if label == blank {
                    let stay = next.entry(node).or_insert(Ends::NEVER);
                    stay.blank = log_add(stay.blank, ends.total() + log_p);
                    continue;
                }
                let mut arriving = ends.total();
                if Some(label) == last {
                    // without a blank between them two equal labels are one
                    let stay = next.entry(node).or_insert(Ends::NEVER);
                    stay.label = log_add(stay.label, ends.label + log_p);
                    arriving = ends.blank;
                }
                if arriving > f64::NEG_INFINITY {
                    let longer = next.entry(prefixes.child(node, label)).or_insert(Ends::NEVER);
                    longer.label = log_add(longer.label, arriving + log_p);
                }
            }
        }
        kept = next.into_iter().collect();
        kept.sort_by(|a, b| b.1.total().total_cmp(&a.1.total()).then(a.0.cmp(&b.0)));
        kept.truncate(width.max(1));
    }
    kept.first().map_or((Vec::new(), f64::NEG_INFINITY), |(node, ends)| (prefixes.labels(*node), ends.total()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    fn collapse(path: &[u32]) -> Vec<u32> {
        let mut labels = path.to_vec();
        labels.dedup();
        labels.retain(|l| *l != 0);
        labels
    }

    fn random(steps: usize, outputs: usize, seed: u64) -> Vec<f32> {
        let mut rng = learner::seeded_rng(seed, "logits");
        (0..steps * outputs).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    /// Log-probability of every labelling, by all paths.
    fn enumerate(logits: &[f32], outputs: usize) -> BTreeMap<Vec<u32>, f64> {
        let steps = logits.len() / outputs;
        let mut all = BTreeMap::new();
        for code in 0..outputs.pow(steps as u32) {
            let path: Vec<u32> = (0..steps).map(|t| (code / outputs.pow(t as u32) % outputs) as u32).collect();
            let log_p: f64 = logits
                .chunks(outputs)
                .zip(&path)
                .map(|(row, &v)| f64::from(row[v as usize]) - row.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln())
                .sum();
            let sum = all.entry(collapse(&path)).or_insert(f64::NEG_INFINITY);
            *sum = log_add(*sum, log_p);
        }
        all
    }

    #[test]
    fn a_wide_beam_finds_the_best_labelling_and_its_probability() {
        let mut differs = 0;
        for seed in 0..60 {
            let logits = random(6, 3, seed);
            let all = enumerate(&logits, 3);
            let best = all.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
            let (labels, log_p) = beam(&logits, 3, 0, 200); // more than there are labellings
            assert_eq!(&labels, best.0);
            assert!((log_p - best.1).abs() < 1e-12, "{log_p} {}", best.1);
            differs += u32::from(greedy(&logits, 3, 0) != labels);
        }
        assert!(differs > 10, "only {differs} of 60: too easy to tell a beam from the best path");
    }

    #[test]
    fn a_wider_beam_is_as_good_and_mostly_better() {
        let probability = |width: usize| -> f64 {
            (0..40)
                .map(|seed| {
                    let logits = random(8, 3, seed);
                    enumerate(&logits, 3)[&beam(&logits, 3, 0, width).0]
                })
                .sum()
        };
        let [one, four, many] = [1, 4, 64].map(probability);
        assert!(one < four && four <= many, "{one} {four} {many}");
    }

    #[test]
    fn greedy_is_the_collapsed_best_path() {
        let row = |best: usize| (0..4).map(|v| f32::from(u8::from(v == best))).collect::<Vec<f32>>();
        let logits: Vec<f32> = [1, 1, 0, 1, 2, 2, 0, 0, 3].into_iter().flat_map(row).collect();
        assert_eq!(greedy(&logits, 4, 0), [1, 1, 2, 3]);
        assert!(greedy(&[], 4, 0).is_empty());
        assert_eq!(beam(&[], 4, 0, 3).0, Vec::<u32>::new());
        // where one path has all the probability both agree
        let sharp: Vec<f32> = logits.iter().map(|z| 50.0 * z).collect();
        assert_eq!(beam(&sharp, 4, 0, 4).0, [1, 1, 2, 3]);
    }
}
