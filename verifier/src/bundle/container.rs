//! A strict tar (POSIX ustar): plain files in one folder, every header in one legal form.
//!
//! `tar xf` unpacks it anywhere. A header holds a name and a size and nothing that varies; reading
//! writes the header again and compares, so that two readers can never see two different files.

use std::io::{self, Read, Write};

/// The unit of a tar.
const BLOCK: usize = 512;

/// The folder that everything unpacks into.
const FOLDER: &str = "countersign-bundle/";

/// Longest name within the folder: what a header holds less the folder.
const MAX_NAME: usize = 100 - FOLDER.len();

/// Why these bytes are no container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The source of bytes failed: no verdict.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It ends too early.
    #[error("the file is cut off")]
    CutOff,
    /// A header is not in its one legal form.
    #[error("the file is no bundle, or was changed: a header is not as countersign writes it")]
    Header,
    /// What fills a block is not zero.
    #[error("the file was changed: something is hidden behind the end of a member")]
    Padding,
    /// There is more behind the end.
    #[error("the file was changed: something stands behind its end")]
    Trailing,
    /// A member is larger than its kind may be.
    #[error("the member {0} is larger than any can be")]
    TooLarge(String),
}

/// The header of a plain file; nothing when the name does not fit.
fn header(name: &str, size: usize) -> Option<[u8; BLOCK]> {
    if name.is_empty() || name.len() > MAX_NAME {
        return None;
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = block.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, FOLDER.as_bytes());
    put(FOLDER.len(), name.as_bytes());
    put(100, b"0000644\0"); // mode
    put(108, b"0000000\0"); // owner
    put(116, b"0000000\0"); // group
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0"); // time: none, so that the same evidence is the same file
    put(148, b"        "); // the sum is made with blanks in its place
    put(156, b"0"); // a plain file
    put(257, b"ustar\0");
    put(263, b"00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    if let Some(place) = block.get_mut(148..156) {
        place.copy_from_slice(sum.as_bytes());
    }
    Some(block)
}

const fn padding(size: usize) -> usize {
    (BLOCK - size % BLOCK) % BLOCK
}

/// A file in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name within the folder.
    pub(super) name: String,
    /// What it holds.
    pub(super) content: Vec<u8>,
}

/// Reads members one after the other.
#[derive(Debug)]
pub(super) struct Unpacker<R> {
    source: R,
    ended: bool,
}

impl<R: Read> Unpacker<R> {
    pub(super) const fn new(source: R) -> Self {
        Self {
            source,
            ended: false,
        }
    }

    /// The next member; nothing behind the last. `limit` says how large one of a name may be.
    ///
    /// # Errors
    /// See [`ContainerError`].
    pub(super) fn next(
        &mut self,
        limit: impl Fn(&str) -> usize,
    ) -> Result<Option<Member>, ContainerError> {
        if self.ended {
            return Ok(None);
        }
        let block = self.block()?;
        if block == [0; BLOCK] {
            return self.end();
        }
        let (name, size) = parse(&block).ok_or(ContainerError::Header)?;
        if size > limit(&name) {
            return Err(ContainerError::TooLarge(name));
        }
        let mut content = vec![0; size];
        self.fill(&mut content)?;
        let mut rest = vec![0; padding(size)];
        self.fill(&mut rest)?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(ContainerError::Padding);
        }
        Ok(Some(Member { name, content }))
    }

    /// Two blocks of zeros, and nothing after them.
    fn end(&mut self) -> Result<Option<Member>, ContainerError> {
        self.ended = true;
        if self.block()? != [0; BLOCK] {
            return Err(ContainerError::Header);
        }
        let mut more = [0];
        match self.source.read(&mut more)? {
            0 => Ok(None),
            _more => Err(ContainerError::Trailing),
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK], ContainerError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn fill(&mut self, place: &mut [u8]) -> Result<(), ContainerError> {
        self.source.read_exact(place).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                ContainerError::CutOff
            } else {
                ContainerError::Io(error)
            }
        })
    }
}

/// Name and size, if this is the very header that they have.
fn parse(block: &[u8; BLOCK]) -> Option<(String, usize)> {
    let text = |from: usize, len: usize| {
        let field = block.get(from..from + len)?;
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(len);
        std::str::from_utf8(field.get(..end)?).ok()
    };
    let name = text(0, 100)?.strip_prefix(FOLDER)?.to_owned();
    let size = usize::from_str_radix(text(124, 12)?, 8).ok()?;
    (header(&name, size)? == *block).then_some((name, size))
}

/// Writes members one after the other.
#[derive(Debug)]
pub(super) struct Packer<W> {
    sink: W,
}

impl<W: Write> Packer<W> {
    pub(super) const fn new(sink: W) -> Self {
        Self { sink }
    }

    /// Appends a member.
    ///
    /// # Errors
    /// The sink fails, or the name fits into no header.
    pub(super) fn put(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let header = header(name, content.len());
        let header = header.ok_or_else(|| io::Error::other("a name that fits into no header"))?;
        self.sink.write_all(&header)?;
        self.sink.write_all(content)?;
        self.sink.write_all(&vec![0; padding(content.len())])
    }

    /// Ends the container and gives the sink back.
    ///
    /// # Errors
    /// The sink fails.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&[0; 2 * BLOCK])?;
        self.sink.flush()?;
        Ok(self.sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed() -> Vec<u8> {
        let mut packer = Packer::new(Vec::new());
        packer.put("README.txt", b"hello\n").unwrap();
        packer.put("empty", b"").unwrap();
        packer.put("blobs/00", &[7; 512]).unwrap();
        packer.finish().unwrap()
    }

    fn unpack(bytes: &[u8]) -> Result<Vec<Member>, ContainerError> {
        let mut unpacker = Unpacker::new(bytes);
        let mut members = Vec::new();
        while let Some(member) = unpacker.next(|_| 4096)? {
            members.push(member);
        }
        Ok(members)
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let members = unpack(&packed()).unwrap();
        let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["README.txt", "empty", "blobs/00"]);
        assert_eq!(members.first().unwrap().content, b"hello\n");
    }

    /// As `tar` wants it: headers and content in whole blocks, two empty ones at the end.
    #[test]
    fn members_fill_whole_blocks() {
        assert_eq!(packed().len(), 7 * 512);
        let sizes = [0, 1, 511, 512, 513, 1024];
        assert_eq!(sizes.map(padding), [0, 511, 1, 0, 511, 0]);
    }

    #[test]
    fn a_name_that_fits_into_no_header_is_not_packed() {
        let fits = |len: usize| header(&"n".repeat(len), 0).is_some();
        assert_eq!(
            [0, 1, 81, 82, 100].map(fits),
            [false, true, true, false, false]
        );
    }

    /// Every bit that is not a member's name, size or content is fixed.
    #[test]
    fn a_flipped_bit_is_another_content_or_an_error() {
        let bytes = packed();
        let whole = unpack(&bytes).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(members) = unpack(&changed) {
                assert_ne!(members, whole, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_cut_an_addition_and_a_huge_member_are_refused() {
        let bytes = packed();
        for end in 0..bytes.len() {
            assert!(unpack(&bytes[..end]).is_err(), "cut at {end}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(unpack(&longer), Err(ContainerError::Trailing)));
        let mut unpacker = Unpacker::new(bytes.as_slice());
        let huge = unpacker.next(|_| 5);
        assert!(matches!(huge, Err(ContainerError::TooLarge(name)) if name == "README.txt"));
        let mut unpacker = Unpacker::new(bytes.as_slice());
        assert!(unpacker.next(|_| 6).unwrap().is_some());
    }
}
