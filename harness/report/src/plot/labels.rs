//! Labels that stand beside what they name, without lying on each other.

/// A rectangle: left, top, right, bottom.
pub(super) type Area = [f64; 4];

/// Heights for labels that should stand at `wanted`, at least `gap` apart and within `from` to `to` where they fit, in the order of
/// `wanted`.
pub(super) fn spread(wanted: &[f64], gap: f64, from: f64, to: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    let at = |i: usize| wanted.get(i).copied().unwrap_or_default();
    order.sort_by(|a, b| at(*a).total_cmp(&at(*b)).then(a.cmp(b)));
    let mut heights: Vec<f64> = Vec::with_capacity(order.len());
    for &i in &order {
        let least = heights.last().map_or(from, |last| last + gap);
        heights.push(at(i).max(least));
    }
    // what was pushed below the end goes up again
    let mut most = to;
    for height in heights.iter_mut().rev() {
        *height = height.min(most);
        most = *height - gap;
    }
    let mut placed = vec![0.0; wanted.len()];
    for (&i, height) in order.iter().zip(heights) {
        if let Some(place) = placed.get_mut(i) {
            *place = height;
        }
    }
    placed
}

/// The area of a text that begins at `x` with its middle at `y`.
pub(super) fn area(x: f64, y: f64, width: f64, height: f64) -> Area {
    [x, y - height / 2.0, x + width, y + height / 2.0]
}

fn overlap(a: &Area, b: &Area) -> f64 {
    let along = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    along(0) * along(1)
}

/// Left end and middle of a label of a size beside a point: the first place that lies on nothing taken, else the one that lies on
/// least.
pub(super) fn beside(point: (f64, f64), size: (f64, f64), bounds: &Area, taken: &[Area]) -> (f64, f64) {
    let (x, y) = point;
    let (width, height) = size;
    let mut best: Option<(f64, (f64, f64))> = None;
    for distance in [9.0, 20.0, 34.0] {
        let places = [
            (x + distance, y),
            (x - distance - width, y),
            (x - width / 2.0, y - distance - height / 3.0),
            (x - width / 2.0, y + distance + height / 3.0),
            (x + distance * 0.7, y - distance - height / 4.0),
            (x + distance * 0.7, y + distance + height / 4.0),
            (x - distance * 0.7 - width, y - distance),
            (x - distance * 0.7 - width, y + distance),
        ];
        for place in places {
            let own = area(place.0, place.1, width, height);
            let outside =
                (bounds[0] - own[0]).max(own[2] - bounds[2]).max(bounds[1] - own[1]).max(own[3] - bounds[3]).max(0.0);
            let cost = taken.iter().map(|other| overlap(&own, other)).sum::<f64>() + 1e4 * outside + 2.0 * distance;
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, place));
            }
        }
    }
    best.map_or((x, y), |(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_apart_and_inside() {
        let placed = spread(&[50.0, 52.0, 10.0, 99.0, 98.0], 12.0, 0.0, 100.0);
        let mut sorted = placed.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|w| w[1] - w[0] >= 12.0 - 1e-9), "{placed:?}");
        assert!(sorted[0] >= 0.0 && sorted[4] <= 100.0, "{placed:?}");
        assert!((placed[2] - 10.0).abs() < 1e-9 && placed[0] < placed[1] && placed[4] < placed[3], "{placed:?}");
    }

    #[test]
    fn a_label_moves_from_what_is_taken() {
        let bounds = [0.0, 0.0, 200.0, 100.0];
        assert_eq!(beside((50.0, 50.0), (40.0, 12.0), &bounds, &[]), (59.0, 50.0));
        let taken = [area(55.0, 50.0, 60.0, 14.0)];
        let (x, y) = beside((50.0, 50.0), (40.0, 12.0), &bounds, &taken);
        assert!(taken.iter().all(|t| overlap(&area(x, y, 40.0, 12.0), t) <= 0.0), "{x} {y}");
        let (x, _) = beside((195.0, 50.0), (40.0, 12.0), &bounds, &[]);
        assert!(x + 40.0 <= 200.0, "it stays inside: {x}");
    }
}
