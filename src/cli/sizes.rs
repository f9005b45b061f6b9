//! The sizes of test packets.

use clap::Args;

use super::error::{Error, usage};
use super::values::whole;
use crate::config::{
    Family, FrameSizes, SizeClass, SizeMix, SizeProfile, Sizes, frame_of_payload, payload_of_frame,
};
use crate::wire::{MAX_UDP_PAYLOAD, SENDER_LEN};

/// Padding with which request and reply have one size (RFC 5357 §4.2.1).
const DEFAULT_PADDING: usize = 27;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Packet sizes (one of)")]
#[group(multiple = false)]
pub(super) struct SizeArgs {
    /// Octets of padding after the sender's fields, which are of 14 octets, or 48 in the protected
    /// modes of a controller; -1 is --imix [default: 27, or there 64: both directions have one size]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = whole::<i64>)]
    pub(super) padding: Option<i64>,
    /// 7 frames of 64, 4 of 590 and 1 of 1514 bytes in every dozen (Ethernet without FCS)
    #[arg(long)]
    pub(super) imix: bool,
    /// Size of the Ethernet frame without FCS [example: 1514]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = whole::<usize>)]
    pub(super) frame_size: Option<usize>,
    /// Frame sizes with their weights, Ethernet without FCS [example: 64:7,590:4,1514:1]
    #[arg(long, value_name = "SIZE:WEIGHT,...")]
    pub(super) size_mix: Option<SizeMix>,
    /// Size of the UDP payload, from what the fields take (see --padding) to 65507 [example: 8972]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = whole::<usize>)]
    pub(super) payload_size: Option<usize>,
    /// With --find-rate: frame sizes to be searched one after the other, Ethernet without FCS
    /// [default: 83,128,256,512,1024,1280,1514,9014,imix as far as the MTU allows]
    #[arg(long, value_name = "SIZE,...")]
    pub(super) sizes: Option<FrameSizes>,
}

/// How large the requests of a session can be, in octets.
pub(super) struct Room {
    /// UDP payload in front of the padding.
    pub(super) header: usize,
    /// The smallest UDP payload.
    pub(super) least: usize,
    /// Padding with which request and reply have one size.
    pub(super) even: usize,
}

impl Room {
    /// Without TWAMP-Control (RFC 5357 §4.2.1).
    pub(super) const LIGHT: Self = Self {
        header: SENDER_LEN,
        least: SENDER_LEN,
        even: DEFAULT_PADDING,
    };
}

pub(super) fn sizes(args: &SizeArgs, family: Family, room: &Room) -> Result<Sizes, Error> {
    let fixed = |payload: usize| Sizes {
        profile: SizeProfile::Fixed,
        classes: vec![SizeClass {
            payload,
            frame: frame_of_payload(payload, family),
            weight: 1,
        }],
    };
    let least = room.least;
    let smallest = frame_of_payload(least, family);
    if args.imix || args.padding == Some(-1) {
        let mix = SizeMix::imix();
        let classes = mix.sizes().iter().map(|size| {
            let frame = size.frame.max(smallest);
            SizeClass {
                payload: payload_of_frame(frame, family).unwrap_or(least),
                frame,
                weight: size.weight,
            }
        });
        return Ok(Sizes {
            profile: SizeProfile::Imix,
            classes: classes.collect(),
        });
    }
    let of_frame = |flag: &str, frame: usize| {
        let payload = payload_of_frame(frame, family).filter(|payload| *payload >= least);
        payload.ok_or_else(|| {
            let largest = frame_of_payload(MAX_UDP_PAYLOAD, family);
            usage(format!(
                "{flag} {frame}: use {smallest} to {largest} bytes, the Ethernet frame (without FCS) \
                 of a test packet over {family}"
            ))
        })
    };
    if let Some(mix) = &args.size_mix {
        let mut classes = Vec::new();
        for size in mix.sizes() {
            classes.push(SizeClass {
                payload: of_frame("--size-mix", size.frame)?,
                frame: size.frame,
                weight: size.weight,
            });
        }
        return Ok(Sizes {
            profile: SizeProfile::Custom(mix.clone()),
            classes,
        });
    }
    if let Some(frame) = args.frame_size {
        return Ok(fixed(of_frame("--frame-size", frame)?));
    }
    if let Some(payload) = args.payload_size {
        if !(least..=MAX_UDP_PAYLOAD).contains(&payload) {
            return Err(usage(format!(
                "--payload-size {payload}: use {least} to {MAX_UDP_PAYLOAD} bytes of UDP payload"
            )));
        }
        return Ok(fixed(payload));
    }
    Ok(fixed(room.header + padding(args, room)?))
}

/// Octets of padding, as they are asked for or so that request and reply have one size.
fn padding(args: &SizeArgs, room: &Room) -> Result<usize, Error> {
    let (fewest, most) = (room.least - room.header, MAX_UDP_PAYLOAD - room.header);
    let Some(bytes) = args.padding else {
        return Ok(room.even);
    };
    match usize::try_from(bytes) {
        Ok(bytes) if (fewest..=most).contains(&bytes) => Ok(bytes),
        Ok(bytes) if bytes < fewest => Err(usage(format!(
            "--padding {bytes}: these test packets need {fewest} bytes; use {fewest} to {most}"
        ))),
        Ok(bytes) => Err(usage(format!(
            "--padding {bytes}: a UDP payload holds at most {MAX_UDP_PAYLOAD} bytes; use \
                     {most} or less"
        ))),
        Err(_) => Err(usage(format!(
            "--padding {bytes}: use {fewest} to {most}, or -1 for IMIX"
        ))),
    }
}
