//! A list of packet sizes that are measured one after the other.

use std::fmt;
use std::str::FromStr;

use super::error::{ValueError, shown};

/// One entry of a [`FrameSizes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameSize {
    /// Frames of so many octets, Ethernet without FCS.
    Bytes(usize),
    /// The usual Internet mix, [`SizeMix::imix`](super::SizeMix::imix).
    Imix,
}

/// Frame sizes, Ethernet without FCS, in the order in which they are measured: 1 to 16, none twice.
///
/// Text: `83,512,1514,imix`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameSizes(Vec<FrameSize>);

impl FrameSizes {
    /// Those of RFC 2544 §9.1 but for the smallest, with 83, the smallest with which request and
    /// reply have one size over IPv4, a jumbo frame, and the mix.
    #[must_use]
    pub fn usual() -> Self {
        let bytes = [83, 128, 256, 512, 1024, 1280, 1514, 9014].map(FrameSize::Bytes);
        let all = bytes.into_iter().chain([FrameSize::Imix]);
        Self(all.collect())
    }

    /// The sizes in the order in which they were typed.
    #[must_use]
    pub fn sizes(&self) -> &[FrameSize] {
        &self.0
    }
}

impl FromStr for FrameSizes {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const MOST: usize = 16;
        let mut sizes = Vec::new();
        for item in text.split(',').map(str::trim) {
            let size = match item {
                "imix" => FrameSize::Imix,
                digits if !digits.bytes().all(|b| b.is_ascii_digit()) => {
                    return Err(ValueError::NotFrameSizes(shown(text)));
                }
                digits => match digits.parse() {
                    Ok(bytes) => FrameSize::Bytes(bytes),
                    Err(_) => return Err(ValueError::NotFrameSizes(shown(text))),
                },
            };
            if sizes.contains(&size) {
                return Err(ValueError::SizeTwice(size.to_string()));
            }
            sizes.push(size);
        }
        if sizes.len() > MOST {
            return Err(ValueError::ManySizes(sizes.len()));
        }
        Ok(Self(sizes))
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.pad(&bytes.to_string()),
            Self::Imix => f.pad("imix"),
        }
    }
}

impl fmt::Display for FrameSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.pad(&items.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_read_and_print() {
        let read = |text: &str| text.parse::<FrameSizes>();
        assert_eq!(
            read("83, 1514,imix").unwrap().sizes(),
            [
                FrameSize::Bytes(83),
                FrameSize::Bytes(1514),
                FrameSize::Imix
            ]
        );
        let usual = "83,128,256,512,1024,1280,1514,9014,imix";
        assert_eq!(FrameSizes::usual().to_string(), usual);
        for text in ["", ",", "83,", "64:7", "-1", "big", "99999999999999999999"] {
            let error = read(text).expect_err(text);
            assert_eq!(error, ValueError::NotFrameSizes(shown(text)));
        }
        assert_eq!(read("83,83"), Err(ValueError::SizeTwice("83".into())));
        let many: Vec<String> = (100..117).map(|n| n.to_string()).collect();
        assert_eq!(read(&many.join(",")), Err(ValueError::ManySizes(17)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in prop_oneof![any::<String>(), "([0-9]{1,5}|imix)(,([0-9]{1,5}|imix)){0,4}"]) {
            if let Ok(sizes) = text.parse::<FrameSizes>() {
                prop_assert_eq!(sizes.to_string().parse(), Ok(sizes));
            }
        }
    }
}
