//! Bits per byte and perplexity from a summed negative log-likelihood.

/// Bits per byte: the negative log-likelihood `nats` of a text of `bytes` bytes, in base 2, per byte of the original text.
/// NaN for an empty text.
pub fn bits_per_byte(nats: f64, bytes: u64) -> f64 {
    nats / std::f64::consts::LN_2 / bytes as f64
}

/// Perplexity: `exp(nats / tokens)`, per whatever unit `tokens` counts. NaN for an empty text.
pub fn perplexity(nats: f64, tokens: u64) -> f64 {
    (nats / tokens as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_guess_costs_its_alphabet() {
        // 1000 symbols out of 256, one byte each, at −ln(1/256): 8 bits, perplexity 256.
        let nats = 1000.0 * 256f64.ln();
        assert!((bits_per_byte(nats, 1000) - 8.0).abs() < 1e-12);
        assert!((perplexity(nats, 1000) - 256.0).abs() < 1e-9);
    }

    #[test]
    fn perplexity_per_word_is_two_to_the_bits_of_a_word() {
        // The paper's pair of numbers for one model must satisfy this identity: log2(ppl) = bits per byte · bytes per word.
        let (nats, bytes, words) = (1234.5, 700, 130);
        let bits_per_word = bits_per_byte(nats, bytes) * bytes as f64 / words as f64;
        assert!((perplexity(nats, words).log2() - bits_per_word).abs() < 1e-12);
    }

    #[test]
    fn nothing_scored_is_not_a_number() {
        assert!(bits_per_byte(0.0, 0).is_nan() && perplexity(0.0, 0).is_nan());
    }
}
