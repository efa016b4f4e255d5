//! Names of tiles: C2SP tlog-tiles' `<N>[.p/<W>]`. PROTOCOL 4.
//!
//! It owns the one spelling of a tile's place and what a tree of some size has there. It must not
//! fetch anything.

use alloc::format;
use alloc::string::{String, ToString as _};
use core::fmt;
use core::str::FromStr;

use crate::merkle::MAX_TREE_SIZE;

/// Hashes or entries of a full tile.
pub const TILE_WIDTH: u64 = 256;

/// Levels of the tree that one tile spans.
pub const TILE_HEIGHT: u8 = 8;

/// The highest level of tiles in the largest tree.
pub const MAX_TILE_LEVEL: u8 = 7;

/// Longest name: the largest index has seven groups.
const MAX_PATH_BYTES: usize = 64;

/// A tile within its level: which, and how many of its hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilePlace {
    index: u64,
    width: u64,
}

/// The text names no tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a tile: expected groups of three digits as in x001/x234/067, and .p/1 to .p/255 for a partial one"
)]
pub struct NotATile;

impl TilePlace {
    /// A full tile, or the first `width` hashes of one.
    #[must_use]
    pub fn new(index: u64, width: u64) -> Option<Self> {
        let is_tile = (1..=TILE_WIDTH).contains(&width) && index <= MAX_TREE_SIZE / TILE_WIDTH;
        is_tile.then_some(Self { index, width })
    }

    /// Number of the tile within its level.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Hashes or entries in it, 1 to 256.
    #[must_use]
    pub const fn width(&self) -> u64 {
        self.width
    }

    /// Says whether it can never change.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// Number of its first hash or entry within its level.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.index * TILE_WIDTH
    }

    /// Says whether a tree of this size has it at this level.
    #[must_use]
    pub fn is_within(&self, level: u8, size: u64) -> bool {
        level <= MAX_TILE_LEVEL
            && self.first() + self.width <= size >> (u32::from(level) * u32::from(TILE_HEIGHT))
    }
}

impl fmt::Display for TilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            path = format!("x{:03}/{path}", rest % 1000);
            rest /= 1000;
        }
        f.write_str(&path)?;
        if self.is_full() {
            Ok(())
        } else {
            write!(f, ".p/{}", self.width)
        }
    }
}

impl FromStr for TilePlace {
    type Err = NotATile;

    fn from_str(text: &str) -> Result<Self, NotATile> {
        if text.len() > MAX_PATH_BYTES {
            return Err(NotATile);
        }
        let (path, width) = match text.split_once(".p/") {
            Some((path, width)) => (path, width.parse().map_err(|_| NotATile)?),
            None => (text, TILE_WIDTH),
        };
        let digits: String = path.chars().filter(char::is_ascii_digit).collect();
        let index = digits.parse().map_err(|_| NotATile)?;
        let place = Self::new(index, width).ok_or(NotATile)?;
        // Writing it again finds every other spelling: signs, zeros, missing marks.
        if place.to_string() == text {
            Ok(place)
        } else {
            Err(NotATile)
        }
    }
}
