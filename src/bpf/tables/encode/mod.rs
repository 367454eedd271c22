//! The model as rows of maps, and back; a file for each table.

mod address;
mod announce;
mod endpoint;
mod ipcache;
mod maglev;
mod policy;
mod service;
mod settings;
#[cfg(test)]
mod testing;
mod uplink;

pub use address::{address, decode_prefix, flow_socket, ip, prefix, socket};
pub use announce::{announced, decode_link_address, link_address};
pub use endpoint::{decode_endpoint, endpoint};
pub use ipcache::{decode_ipcache_entry, ipcache_entry};
pub use maglev::{decode_maglev, maglev_row_count, maglev_rows};
pub use policy::{decode_direction, decode_policy, decode_policy_key, policy, policy_key};
pub use service::{
    backend, decode_backend, decode_frontend, decode_lut_entry, decode_service,
    decode_service_source, frontend, lut_entry, service, service_address, service_source,
};
pub use settings::{decode_settings, settings, snat_port};
pub use uplink::{decode_uplink, uplink};
