//! Headers in the form in which a gateway hands them over (proxy-wasm ABI 0.2.1), read where they lie.

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

/// The headers in `bytes`, in their order; none when the bytes are no such list: then a request has no host
/// and is refused.
pub fn read(bytes: &[u8]) -> impl Iterator<Item = Pair<'_>> + Clone {
    split(bytes).into_iter().flatten()
}

fn split(bytes: &[u8]) -> Option<impl Iterator<Item = Pair<'_>> + Clone> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (lengths, texts) = rest.split_at_checked(count.checked_mul(8)?)?;
    let (lengths, _) = lengths.as_chunks::<8>();
    // What they take in all, with a zero behind each.
    let both = |lengths: &[u8; 8]| {
        let [a, b, c, d, e, f, g, h] = *lengths;
        let length = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        (length([a, b, c, d]), length([e, f, g, h]))
    };
    let total = lengths
        .iter()
        .map(both)
        .try_fold(0_usize, |sum, (name, value)| sum.checked_add(name)?.checked_add(value)?.checked_add(2));
    if total? > texts.len() {
        return None;
    }
    Some(lengths.iter().map(both).scan(texts, |texts, (name, value)| {
        let (both, rest) = texts.split_at_checked(name.checked_add(value)?.checked_add(2)?)?;
        *texts = rest;
        let (name, value) = both.split_at_checked(name)?;
        Some(Pair { name, value: value.get(1..)?.strip_suffix(b"\0")? })
    }))
}

/// Writes a list in that form.
pub fn write<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = number(pairs.clone().count()).to_vec();
    for (name, value) in pairs.clone() {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for (name, value) in pairs {
        bytes.extend([name, b"\0", value, b"\0"].concat());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            pairs in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::collection::vec(any::<u8>(), 0..20)), 0..9),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = write(pairs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())));
            let found: Vec<_> = read(&bytes).map(|pair| (pair.name.to_vec(), pair.value.to_vec())).collect();
            prop_assert_eq!(&found, &pairs);
            // A list that is cut off is none.
            if !pairs.is_empty() {
                prop_assert_eq!(read(&bytes[..cut.index(bytes.len())]).count(), 0);
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..80), count in 0..9_u8) {
            let _ = read(&bytes).count();
            let mut likely = vec![count, 0, 0, 0];
            likely.extend(&bytes);
            let _ = read(&likely).count();
        }
    }

    #[test]
    fn numbers_that_do_not_fit_32_bits_together_are_no_list() {
        // In WebAssembly a count times eight, and a sum of lengths, may go around.
        let list = |numbers: &[u32]| -> Vec<u8> {
            numbers.iter().flat_map(|number| number.to_le_bytes()).chain([0, 0]).collect()
        };
        assert_eq!(read(&list(&[1, 0, 0])).count(), 1);
        for numbers in
            [&[(1 << 29) + 1, 0, 0][..], &[1, u32::MAX - 1, 0], &[1, u32::MAX, u32::MAX], &[1, 0, u32::MAX]]
        {
            assert_eq!(read(&list(numbers)).count(), 0, "{numbers:?}");
        }
    }
}
