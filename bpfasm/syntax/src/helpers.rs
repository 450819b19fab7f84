//! Helper functions: the names of the UAPI's `enum bpf_func_id` (`include/uapi/linux/bpf.h`), with
//! `BPF_FUNC_` written as the function is named, `bpf_`.
//!
//! The rows come from the type information (BTF) of Debian's kernels 5.10, 6.1, 6.12, 6.16 and 7.3,
//! by `bpfasm/tests/data/make-helpers.sh`; a version is the first of these kernels that has the
//! helper, so the helper may be older.

/// The number of the helper with this name (`bpf_map_lookup_elem`), if it is known.
#[must_use]
pub fn id(name: &str) -> Option<u32> {
    HELPERS.iter().find_map(|&(id, known, _)| (known == name).then_some(id))
}

/// The name of the helper with this number, if it is known.
#[must_use]
pub fn name(id: u32) -> Option<&'static str> {
    row(id).map(|row| row.1)
}

/// The first of the kernels 5.10, 6.1, 6.12, 6.16 and 7.3 (major, minor) that has a helper.
#[must_use]
pub fn since(id: u32) -> Option<(u16, u16)> {
    row(id).map(|row| row.2)
}

/// The helper whose name is most similar to `name`, if one is similar.
#[must_use]
pub fn near(name: &str) -> Option<&'static str> {
    const MAX_DISTANCE: usize = 3;
    HELPERS
        .iter()
        .filter(|row| row.1.len().abs_diff(name.len()) <= MAX_DISTANCE)
        .map(|row| (distance(row.1, name), row.1))
        .min()
        .and_then(|(distance, known)| (distance <= MAX_DISTANCE).then_some(known))
}

fn row(id: u32) -> Option<&'static (u32, &'static str, (u16, u16))> {
    // Numbers start at 1 without gaps; a unit test checks that.
    HELPERS.get(usize::try_from(id).ok()?.checked_sub(1)?)
}

/// The number of characters to add, remove or replace to turn `b` into `a` (Levenshtein distance).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (slot, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let here = (diagonal + usize::from(x != y)).min(left + 1).min(*slot + 1);
            diagonal = *slot;
            *slot = here;
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

/// Each helper's number, name, and first kernel of those above.
#[rustfmt::skip]
const HELPERS: &[(u32, &str, (u16, u16))] = &[
    (1, "bpf_map_lookup_elem", (5, 10)),
    (2, "bpf_map_update_elem", (5, 10)),
    (3, "bpf_map_delete_elem", (5, 10)),
    (4, "bpf_probe_read", (5, 10)),
    (5, "bpf_ktime_get_ns", (5, 10)),
    (6, "bpf_trace_printk", (5, 10)),
    (7, "bpf_get_prandom_u32", (5, 10)),
    (8, "bpf_get_smp_processor_id", (5, 10)),
    (9, "bpf_skb_store_bytes", (5, 10)),
    (10, "bpf_l3_csum_replace", (5, 10)),
    (11, "bpf_l4_csum_replace", (5, 10)),
    (12, "bpf_tail_call", (5, 10)),
    (13, "bpf_clone_redirect", (5, 10)),
    (14, "bpf_get_current_pid_tgid", (5, 10)),
    (15, "bpf_get_current_uid_gid", (5, 10)),
    (16, "bpf_get_current_comm", (5, 10)),
    (17, "bpf_get_cgroup_classid", (5, 10)),
    (18, "bpf_skb_vlan_push", (5, 10)),
    (19, "bpf_skb_vlan_pop", (5, 10)),
    (20, "bpf_skb_get_tunnel_key", (5, 10)),
    (21, "bpf_skb_set_tunnel_key", (5, 10)),
    (22, "bpf_perf_event_read", (5, 10)),
    (23, "bpf_redirect", (5, 10)),
    (24, "bpf_get_route_realm", (5, 10)),
    (25, "bpf_perf_event_output", (5, 10)),
    (26, "bpf_skb_load_bytes", (5, 10)),
    (27, "bpf_get_stackid", (5, 10)),
    (28, "bpf_csum_diff", (5, 10)),
    (29, "bpf_skb_get_tunnel_opt", (5, 10)),
    (30, "bpf_skb_set_tunnel_opt", (5, 10)),
    (31, "bpf_skb_change_proto", (5, 10)),
    (32, "bpf_skb_change_type", (5, 10)),
    (33, "bpf_skb_under_cgroup", (5, 10)),
    (34, "bpf_get_hash_recalc", (5, 10)),
    (35, "bpf_get_current_task", (5, 10)),
    (36, "bpf_probe_write_user", (5, 10)),
    (37, "bpf_current_task_under_cgroup", (5, 10)),
    (38, "bpf_skb_change_tail", (5, 10)),
    (39, "bpf_skb_pull_data", (5, 10)),
    (40, "bpf_csum_update", (5, 10)),
    (41, "bpf_set_hash_invalid", (5, 10)),
    (42, "bpf_get_numa_node_id", (5, 10)),
    (43, "bpf_skb_change_head", (5, 10)),
    (44, "bpf_xdp_adjust_head", (5, 10)),
    (45, "bpf_probe_read_str", (5, 10)),
    (46, "bpf_get_socket_cookie", (5, 10)),
    (47, "bpf_get_socket_uid", (5, 10)),
    (48, "bpf_set_hash", (5, 10)),
    (49, "bpf_setsockopt", (5, 10)),
    (50, "bpf_skb_adjust_room", (5, 10)),
    (51, "bpf_redirect_map", (5, 10)),
    (52, "bpf_sk_redirect_map", (5, 10)),
    (53, "bpf_sock_map_update", (5, 10)),
    (54, "bpf_xdp_adjust_meta", (5, 10)),
    (55, "bpf_perf_event_read_value", (5, 10)),
    (56, "bpf_perf_prog_read_value", (5, 10)),
    (57, "bpf_getsockopt", (5, 10)),
    (58, "bpf_override_return", (5, 10)),
    (59, "bpf_sock_ops_cb_flags_set", (5, 10)),
    (60, "bpf_msg_redirect_map", (5, 10)),
    (61, "bpf_msg_apply_bytes", (5, 10)),
    (62, "bpf_msg_cork_bytes", (5, 10)),
    (63, "bpf_msg_pull_data", (5, 10)),
    (64, "bpf_bind", (5, 10)),
    (65, "bpf_xdp_adjust_tail", (5, 10)),
    (66, "bpf_skb_get_xfrm_state", (5, 10)),
    (67, "bpf_get_stack", (5, 10)),
    (68, "bpf_skb_load_bytes_relative", (5, 10)),
    (69, "bpf_fib_lookup", (5, 10)),
    (70, "bpf_sock_hash_update", (5, 10)),
    (71, "bpf_msg_redirect_hash", (5, 10)),
    (72, "bpf_sk_redirect_hash", (5, 10)),
    (73, "bpf_lwt_push_encap", (5, 10)),
    (74, "bpf_lwt_seg6_store_bytes", (5, 10)),
    (75, "bpf_lwt_seg6_adjust_srh", (5, 10)),
    (76, "bpf_lwt_seg6_action", (5, 10)),
    (77, "bpf_rc_repeat", (5, 10)),
    (78, "bpf_rc_keydown", (5, 10)),
    (79, "bpf_skb_cgroup_id", (5, 10)),
    (80, "bpf_get_current_cgroup_id", (5, 10)),
    (81, "bpf_get_local_storage", (5, 10)),
    (82, "bpf_sk_select_reuseport", (5, 10)),
    (83, "bpf_skb_ancestor_cgroup_id", (5, 10)),
    (84, "bpf_sk_lookup_tcp", (5, 10)),
    (85, "bpf_sk_lookup_udp", (5, 10)),
    (86, "bpf_sk_release", (5, 10)),
    (87, "bpf_map_push_elem", (5, 10)),
    (88, "bpf_map_pop_elem", (5, 10)),
    (89, "bpf_map_peek_elem", (5, 10)),
    (90, "bpf_msg_push_data", (5, 10)),
    (91, "bpf_msg_pop_data", (5, 10)),
    (92, "bpf_rc_pointer_rel", (5, 10)),
    (93, "bpf_spin_lock", (5, 10)),
    (94, "bpf_spin_unlock", (5, 10)),
    (95, "bpf_sk_fullsock", (5, 10)),
    (96, "bpf_tcp_sock", (5, 10)),
    (97, "bpf_skb_ecn_set_ce", (5, 10)),
    (98, "bpf_get_listener_sock", (5, 10)),
    (99, "bpf_skc_lookup_tcp", (5, 10)),
    (100, "bpf_tcp_check_syncookie", (5, 10)),
    (101, "bpf_sysctl_get_name", (5, 10)),
    (102, "bpf_sysctl_get_current_value", (5, 10)),
    (103, "bpf_sysctl_get_new_value", (5, 10)),
    (104, "bpf_sysctl_set_new_value", (5, 10)),
    (105, "bpf_strtol", (5, 10)),
    (106, "bpf_strtoul", (5, 10)),
    (107, "bpf_sk_storage_get", (5, 10)),
    (108, "bpf_sk_storage_delete", (5, 10)),
    (109, "bpf_send_signal", (5, 10)),
    (110, "bpf_tcp_gen_syncookie", (5, 10)),
    (111, "bpf_skb_output", (5, 10)),
    (112, "bpf_probe_read_user", (5, 10)),
    (113, "bpf_probe_read_kernel", (5, 10)),
    (114, "bpf_probe_read_user_str", (5, 10)),
    (115, "bpf_probe_read_kernel_str", (5, 10)),
    (116, "bpf_tcp_send_ack", (5, 10)),
    (117, "bpf_send_signal_thread", (5, 10)),
    (118, "bpf_jiffies64", (5, 10)),
    (119, "bpf_read_branch_records", (5, 10)),
    (120, "bpf_get_ns_current_pid_tgid", (5, 10)),
    (121, "bpf_xdp_output", (5, 10)),
    (122, "bpf_get_netns_cookie", (5, 10)),
    (123, "bpf_get_current_ancestor_cgroup_id", (5, 10)),
    (124, "bpf_sk_assign", (5, 10)),
    (125, "bpf_ktime_get_boot_ns", (5, 10)),
    (126, "bpf_seq_printf", (5, 10)),
    (127, "bpf_seq_write", (5, 10)),
    (128, "bpf_sk_cgroup_id", (5, 10)),
    (129, "bpf_sk_ancestor_cgroup_id", (5, 10)),
    (130, "bpf_ringbuf_output", (5, 10)),
    (131, "bpf_ringbuf_reserve", (5, 10)),
    (132, "bpf_ringbuf_submit", (5, 10)),
    (133, "bpf_ringbuf_discard", (5, 10)),
    (134, "bpf_ringbuf_query", (5, 10)),
    (135, "bpf_csum_level", (5, 10)),
    (136, "bpf_skc_to_tcp6_sock", (5, 10)),
    (137, "bpf_skc_to_tcp_sock", (5, 10)),
    (138, "bpf_skc_to_tcp_timewait_sock", (5, 10)),
    (139, "bpf_skc_to_tcp_request_sock", (5, 10)),
    (140, "bpf_skc_to_udp6_sock", (5, 10)),
    (141, "bpf_get_task_stack", (5, 10)),
    (142, "bpf_load_hdr_opt", (5, 10)),
    (143, "bpf_store_hdr_opt", (5, 10)),
    (144, "bpf_reserve_hdr_opt", (5, 10)),
    (145, "bpf_inode_storage_get", (5, 10)),
    (146, "bpf_inode_storage_delete", (5, 10)),
    (147, "bpf_d_path", (5, 10)),
    (148, "bpf_copy_from_user", (5, 10)),
    (149, "bpf_snprintf_btf", (5, 10)),
    (150, "bpf_seq_printf_btf", (5, 10)),
    (151, "bpf_skb_cgroup_classid", (5, 10)),
    (152, "bpf_redirect_neigh", (5, 10)),
    (153, "bpf_per_cpu_ptr", (5, 10)),
    (154, "bpf_this_cpu_ptr", (5, 10)),
    (155, "bpf_redirect_peer", (5, 10)),
    (156, "bpf_task_storage_get", (6, 1)),
    (157, "bpf_task_storage_delete", (6, 1)),
    (158, "bpf_get_current_task_btf", (6, 1)),
    (159, "bpf_bprm_opts_set", (6, 1)),
    (160, "bpf_ktime_get_coarse_ns", (6, 1)),
    (161, "bpf_ima_inode_hash", (6, 1)),
    (162, "bpf_sock_from_file", (6, 1)),
    (163, "bpf_check_mtu", (6, 1)),
    (164, "bpf_for_each_map_elem", (6, 1)),
    (165, "bpf_snprintf", (6, 1)),
    (166, "bpf_sys_bpf", (6, 1)),
    (167, "bpf_btf_find_by_name_kind", (6, 1)),
    (168, "bpf_sys_close", (6, 1)),
    (169, "bpf_timer_init", (6, 1)),
    (170, "bpf_timer_set_callback", (6, 1)),
    (171, "bpf_timer_start", (6, 1)),
    (172, "bpf_timer_cancel", (6, 1)),
    (173, "bpf_get_func_ip", (6, 1)),
    (174, "bpf_get_attach_cookie", (6, 1)),
    (175, "bpf_task_pt_regs", (6, 1)),
    (176, "bpf_get_branch_snapshot", (6, 1)),
    (177, "bpf_trace_vprintk", (6, 1)),
    (178, "bpf_skc_to_unix_sock", (6, 1)),
    (179, "bpf_kallsyms_lookup_name", (6, 1)),
    (180, "bpf_find_vma", (6, 1)),
    (181, "bpf_loop", (6, 1)),
    (182, "bpf_strncmp", (6, 1)),
    (183, "bpf_get_func_arg", (6, 1)),
    (184, "bpf_get_func_ret", (6, 1)),
    (185, "bpf_get_func_arg_cnt", (6, 1)),
    (186, "bpf_get_retval", (6, 1)),
    (187, "bpf_set_retval", (6, 1)),
    (188, "bpf_xdp_get_buff_len", (6, 1)),
    (189, "bpf_xdp_load_bytes", (6, 1)),
    (190, "bpf_xdp_store_bytes", (6, 1)),
    (191, "bpf_copy_from_user_task", (6, 1)),
    (192, "bpf_skb_set_tstamp", (6, 1)),
    (193, "bpf_ima_file_hash", (6, 1)),
    (194, "bpf_kptr_xchg", (6, 1)),
    (195, "bpf_map_lookup_percpu_elem", (6, 1)),
    (196, "bpf_skc_to_mptcp_sock", (6, 1)),
    (197, "bpf_dynptr_from_mem", (6, 1)),
    (198, "bpf_ringbuf_reserve_dynptr", (6, 1)),
    (199, "bpf_ringbuf_submit_dynptr", (6, 1)),
    (200, "bpf_ringbuf_discard_dynptr", (6, 1)),
    (201, "bpf_dynptr_read", (6, 1)),
    (202, "bpf_dynptr_write", (6, 1)),
    (203, "bpf_dynptr_data", (6, 1)),
    (204, "bpf_tcp_raw_gen_syncookie_ipv4", (6, 1)),
    (205, "bpf_tcp_raw_gen_syncookie_ipv6", (6, 1)),
    (206, "bpf_tcp_raw_check_syncookie_ipv4", (6, 1)),
    (207, "bpf_tcp_raw_check_syncookie_ipv6", (6, 1)),
    (208, "bpf_ktime_get_tai_ns", (6, 1)),
    (209, "bpf_user_ringbuf_drain", (6, 1)),
    (210, "bpf_cgrp_storage_get", (6, 12)),
    (211, "bpf_cgrp_storage_delete", (6, 12)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_start_at_one_and_have_no_gap() {
        for (row, expected) in HELPERS.iter().zip(1..) {
            assert_eq!(row.0, expected, "{}", row.1);
            assert_eq!(id(row.1), Some(row.0));
            assert_eq!(name(row.0), Some(row.1));
        }
        assert_eq!(name(0), None);
        assert_eq!(name(u32::MAX), None);
    }

    #[test]
    fn a_typing_error_finds_the_helper_that_was_meant() {
        assert_eq!(near("bpf_map_lookup_elme"), Some("bpf_map_lookup_elem"));
        assert_eq!(near("bpf_get_current_pid"), None);
        assert_eq!(near(""), None);
        assert_eq!(
            (distance("abc", "abc"), distance("abc", "ab"), distance("", "abc"), distance("abc", "xbz")),
            (0, 1, 3, 2)
        );
    }
}
