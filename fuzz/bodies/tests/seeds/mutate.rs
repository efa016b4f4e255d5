//! Mutations by a number: the same number is the same mutation, on every machine.

/// Pieces that parsers look for.
const WORDS: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    b":",
    b",",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"*",
    b"?",
    b"\\",
    b"..",
    b"/",
    b"-",
    b"=",
    b"null",
    b"true",
    b"false",
    b"-1",
    b"0",
    b"18446744073709551615",
    b"1e9",
    b"9007199254740993",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xc3\x28",
    b"\xef\xbb\xbf",
    b"data:",
    b"event:",
    b"CSJ1",
    b"ssh-ed25519",
    b"[[allow]]\n",
    b"[confine]\n",
    b"**",
    b"{a,b}",
    b"#",
];

/// Numbers without end: xorshift, so that no crate has to stay the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap();
        usize::try_from(self.roll() % end).unwrap()
    }
}

/// The mutation with this number of one of the seeds.
pub(crate) fn mutation(target: &str, number: u64, seeds: &[(String, Vec<u8>)]) -> Vec<u8> {
    let name = target.bytes().fold(7, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let mut dice = Dice(name ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _warm in 0..4 {
        dice.roll();
    }
    let mut input = seeds[dice.below(seeds.len())].1.clone();
    for _edit in 0..=dice.below(5) {
        edit(&mut input, &mut dice, seeds);
    }
    input
}

fn edit(input: &mut Vec<u8>, dice: &mut Dice, seeds: &[(String, Vec<u8>)]) {
    let at = dice.below(input.len());
    let some = dice.below((input.len() - at).min(64)) + 1;
    let end = (at + some).min(input.len());
    match dice.below(9) {
        0 if !input.is_empty() => input[at] ^= 1 << dice.below(8),
        1 if !input.is_empty() => input[at] = u8::try_from(dice.below(256)).unwrap(),
        2 => drop(input.drain(at..end)),
        3 => input.truncate(at),
        4 => {
            let piece = input[at..end].to_vec();
            splice(input, at, &piece);
        }
        5 => splice(input, at, WORDS[dice.below(WORDS.len())]),
        6 => {
            let word = WORDS[dice.below(WORDS.len())];
            let end = (at + word.len()).min(input.len());
            input.splice(at..end, word.iter().copied());
        }
        7 => {
            let other = &seeds[dice.below(seeds.len())].1;
            let from = dice.below(other.len());
            let to = (from + dice.below(256) + 1).min(other.len());
            splice(input, at, &other[from..to]);
        }
        _zeros => input[at..end].fill(0),
    }
}

fn splice(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}
