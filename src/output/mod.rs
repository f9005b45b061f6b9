//! x
pub mod text {
    //! x
    /// x
    pub fn summary(r: &crate::report::Report) -> String { format!("{r:#?}") }
    /// x
    pub fn count(n: u64) -> String { n.to_string() }
}
