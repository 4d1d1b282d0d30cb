-- Messages of Wayland's interfaces by opcode, requests and events: names, and arguments as name:type.
-- Types: i int, u uint, f fixed, s string, o object, n new object (=its interface; without: s and u come before),
-- a array, h descriptor (not in the bytes).  Made by tests/dissector/wayland_names.py from
-- linux-dmabuf-unstable-v1.xml, presentation-time.xml, primary-selection-unstable-v1.xml, text-
-- input-unstable-v3.xml, viewporter.xml, wayland.xml, xdg-decoration-unstable-v1.xml, xdg-output-
-- unstable-v1.xml, xdg-shell.xml
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

return {
    wl_display = {
        requests = {
            "sync callback:n=wl_callback",
            "get_registry registry:n=wl_registry",
        },
        events = {
            "error object_id:o code:u message:s",
            "delete_id id:u",
        },
    },
    wl_registry = {
        requests = {
            "bind name:u id:n",
        },
        events = {
            "global name:u interface:s version:u",
            "global_remove name:u",
        },
    },
    wl_callback = {
        events = {
            "done callback_data:u",
        },
    },
    wl_compositor = {
        requests = {
            "create_surface id:n=wl_surface",
            "create_region id:n=wl_region",
        },
    },
    wl_shm_pool = {
        requests = {
            "create_buffer id:n=wl_buffer offset:i width:i height:i stride:i format:u",
            "destroy",
            "resize size:i",
        },
    },
    wl_shm = {
        requests = {
            "create_pool id:n=wl_shm_pool fd:h size:i",
        },
        events = {
            "format format:u",
        },
    },
    wl_buffer = {
        requests = {
            "destroy",
        },
        events = {
            "release",
        },
    },
    wl_data_offer = {
        requests = {
            "accept serial:u mime_type:s",
            "receive mime_type:s fd:h",
            "destroy",
            "finish",
            "set_actions dnd_actions:u preferred_action:u",
        },
        events = {
            "offer mime_type:s",
            "source_actions source_actions:u",
            "action dnd_action:u",
        },
    },
    wl_data_source = {
        requests = {
            "offer mime_type:s",
            "destroy",
            "set_actions dnd_actions:u",
        },
        events = {
            "target mime_type:s",
            "send mime_type:s fd:h",
            "cancelled",
            "dnd_drop_performed",
            "dnd_finished",
            "action dnd_action:u",
        },
    },
    wl_data_device = {
        requests = {
            "start_drag source:o origin:o icon:o serial:u",
            "set_selection source:o serial:u",
            "release",
        },
        events = {
            "data_offer id:n=wl_data_offer",
            "enter serial:u surface:o x:f y:f id:o",
            "leave",
            "motion time:u x:f y:f",
            "drop",
            "selection id:o",
        },
    },
    wl_data_device_manager = {
        requests = {
            "create_data_source id:n=wl_data_source",
            "get_data_device id:n=wl_data_device seat:o",
        },
    },
    wl_shell = {
        requests = {
            "get_shell_surface id:n=wl_shell_surface surface:o",
        },
    },
    wl_shell_surface = {
        requests = {
            "pong serial:u",
            "move seat:o serial:u",
            "resize seat:o serial:u edges:u",
            "set_toplevel",
            "set_transient parent:o x:i y:i flags:u",
            "set_fullscreen method:u framingate:u output:o",
            "set_popup seat:o serial:u parent:o x:i y:i flags:u",
            "set_maximized output:o",
            "set_title title:s",
            "set_class class_:s",
        },
        events = {
            "ping serial:u",
            "configure edges:u width:i height:i",
            "popup_done",
        },
    },
    wl_surface = {
        requests = {
            "destroy",
            "attach buffer:o x:i y:i",
            "damage x:i y:i width:i height:i",
            "frame callback:n=wl_callback",
            "set_opaque_region region:o",
            "set_input_region region:o",
            "commit",
            "set_buffer_transform transform:i",
            "set_buffer_scale scale:i",
            "damage_buffer x:i y:i width:i height:i",
            "offset x:i y:i",
        },
        events = {
            "enter output:o",
            "leave output:o",
        },
    },
    wl_seat = {
        requests = {
            "get_pointer id:n=wl_pointer",
            "get_keyboard id:n=wl_keyboard",
            "get_touch id:n=wl_touch",
            "release",
        },
        events = {
            "capabilities capabilities:u",
            "name name:s",
        },
    },
    wl_pointer = {
        requests = {
            "set_cursor serial:u surface:o hotspot_x:i hotspot_y:i",
            "release",
        },
        events = {
            "enter serial:u surface:o surface_x:f surface_y:f",
            "leave serial:u surface:o",
            "motion time:u surface_x:f surface_y:f",
            "button serial:u time:u button:u state:u",
            "axis time:u axis:u value:f",
            "frame",
            "axis_source axis_source:u",
            "axis_stop time:u axis:u",
            "axis_discrete axis:u discrete:i",
            "axis_value120 axis:u value120:i",
        },
    },
    wl_keyboard = {
        requests = {
            "release",
        },
        events = {
            "keymap format:u fd:h size:u",
            "enter serial:u surface:o keys:a",
            "leave serial:u surface:o",
            "key serial:u time:u key:u state:u",
            "modifiers serial:u mods_depressed:u mods_latched:u mods_locked:u group:u",
            "repeat_info rate:i delay:i",
        },
    },
    wl_touch = {
        requests = {
            "release",
        },
        events = {
            "down serial:u time:u surface:o id:i x:f y:f",
            "up serial:u time:u id:i",
            "motion time:u id:i x:f y:f",
            "frame",
            "cancel",
            "shape id:i major:f minor:f",
            "orientation id:i orientation:f",
        },
    },
    wl_output = {
        requests = {
            "release",
        },
        events = {
            "geometry x:i y:i physical_width:i physical_height:i subpixel:i make:s model:s transform:i",
            "mode flags:u width:i height:i refresh:i",
            "done",
            "scale factor:i",
            "name name:s",
            "description description:s",
        },
    },
    wl_region = {
        requests = {
            "destroy",
            "add x:i y:i width:i height:i",
            "subtract x:i y:i width:i height:i",
        },
    },
    wl_subcompositor = {
        requests = {
            "destroy",
            "get_subsurface id:n=wl_subsurface surface:o parent:o",
        },
    },
    wl_subsurface = {
        requests = {
            "destroy",
            "set_position x:i y:i",
            "place_above sibling:o",
            "place_below sibling:o",
            "set_sync",
            "set_desync",
        },
    },
    xdg_wm_base = {
        requests = {
            "destroy",
            "create_positioner id:n=xdg_positioner",
            "get_xdg_surface id:n=xdg_surface surface:o",
            "pong serial:u",
        },
        events = {
            "ping serial:u",
        },
    },
    xdg_positioner = {
        requests = {
            "destroy",
            "set_size width:i height:i",
            "set_anchor_rect x:i y:i width:i height:i",
            "set_anchor anchor:u",
            "set_gravity gravity:u",
            "set_constraint_adjustment constraint_adjustment:u",
            "set_offset x:i y:i",
            "set_reactive",
            "set_parent_size parent_width:i parent_height:i",
            "set_parent_configure serial:u",
        },
    },
    xdg_surface = {
        requests = {
            "destroy",
            "get_toplevel id:n=xdg_toplevel",
            "get_popup id:n=xdg_popup parent:o positioner:o",
            "set_window_geometry x:i y:i width:i height:i",
            "ack_configure serial:u",
        },
        events = {
            "configure serial:u",
        },
    },
    xdg_toplevel = {
        requests = {
            "destroy",
            "set_parent parent:o",
            "set_title title:s",
            "set_app_id app_id:s",
            "show_window_menu seat:o serial:u x:i y:i",
            "move seat:o serial:u",
            "resize seat:o serial:u edges:u",
            "set_max_size width:i height:i",
            "set_min_size width:i height:i",
            "set_maximized",
            "unset_maximized",
            "set_fullscreen output:o",
            "unset_fullscreen",
            "set_minimized",
        },
        events = {
            "configure width:i height:i states:a",
            "close",
            "configure_bounds width:i height:i",
            "wm_capabilities capabilities:a",
        },
    },
    xdg_popup = {
        requests = {
            "destroy",
            "grab seat:o serial:u",
            "reposition positioner:o token:u",
        },
        events = {
            "configure x:i y:i width:i height:i",
            "popup_done",
            "repositioned token:u",
        },
    },
    wp_viewporter = {
        requests = {
            "destroy",
            "get_viewport id:n=wp_viewport surface:o",
        },
    },
    wp_viewport = {
        requests = {
            "destroy",
            "set_source x:f y:f width:f height:f",
            "set_destination width:i height:i",
        },
    },
    wp_presentation = {
        requests = {
            "destroy",
            "feedback surface:o callback:n=wp_presentation_feedback",
        },
        events = {
            "clock_id clk_id:u",
        },
    },
    wp_presentation_feedback = {
        events = {
            "sync_output output:o",
            "presented tv_sec_hi:u tv_sec_lo:u tv_nsec:u refresh:u seq_hi:u seq_lo:u flags:u",
            "discarded",
        },
    },
    zwp_linux_dmabuf_v1 = {
        requests = {
            "destroy",
            "create_params params_id:n=zwp_linux_buffer_params_v1",
            "get_default_feedback id:n=zwp_linux_dmabuf_feedback_v1",
            "get_surface_feedback id:n=zwp_linux_dmabuf_feedback_v1 surface:o",
        },
        events = {
            "format format:u",
            "modifier format:u modifier_hi:u modifier_lo:u",
        },
    },
    zwp_linux_buffer_params_v1 = {
        requests = {
            "destroy",
            "add fd:h plane_idx:u offset:u stride:u modifier_hi:u modifier_lo:u",
            "create width:i height:i format:u flags:u",
            "create_immed buffer_id:n=wl_buffer width:i height:i format:u flags:u",
        },
        events = {
            "created buffer:n=wl_buffer",
            "failed",
        },
    },
    zwp_linux_dmabuf_feedback_v1 = {
        requests = {
            "destroy",
        },
        events = {
            "done",
            "format_table fd:h size:u",
            "main_device device:a",
            "tranche_done",
            "tranche_target_device device:a",
            "tranche_formats indices:a",
            "tranche_flags flags:u",
        },
    },
    zxdg_decoration_manager_v1 = {
        requests = {
            "destroy",
            "get_toplevel_decoration id:n=zxdg_toplevel_decoration_v1 toplevel:o",
        },
    },
    zxdg_toplevel_decoration_v1 = {
        requests = {
            "destroy",
            "set_mode mode:u",
            "unset_mode",
        },
        events = {
            "configure mode:u",
        },
    },
    zxdg_output_manager_v1 = {
        requests = {
            "destroy",
            "get_xdg_output id:n=zxdg_output_v1 output:o",
        },
    },
    zxdg_output_v1 = {
        requests = {
            "destroy",
        },
        events = {
            "logical_position x:i y:i",
            "logical_size width:i height:i",
            "done",
            "name name:s",
            "description description:s",
        },
    },
    zwp_primary_selection_device_manager_v1 = {
        requests = {
            "create_source id:n=zwp_primary_selection_source_v1",
            "get_device id:n=zwp_primary_selection_device_v1 seat:o",
            "destroy",
        },
    },
    zwp_primary_selection_device_v1 = {
        requests = {
            "set_selection source:o serial:u",
            "destroy",
        },
        events = {
            "data_offer offer:n=zwp_primary_selection_offer_v1",
            "selection id:o",
        },
    },
    zwp_primary_selection_offer_v1 = {
        requests = {
            "receive mime_type:s fd:h",
            "destroy",
        },
        events = {
            "offer mime_type:s",
        },
    },
    zwp_primary_selection_source_v1 = {
        requests = {
            "offer mime_type:s",
            "destroy",
        },
        events = {
            "send mime_type:s fd:h",
            "cancelled",
        },
    },
    zwp_text_input_v3 = {
        requests = {
            "destroy",
            "enable",
            "disable",
            "set_surrounding_text text:s cursor:i anchor:i",
            "set_text_change_cause cause:u",
            "set_content_type hint:u purpose:u",
            "set_cursor_rectangle x:i y:i width:i height:i",
            "commit",
        },
        events = {
            "enter surface:o",
            "leave surface:o",
            "preedit_string text:s cursor_begin:i cursor_end:i",
            "commit_string text:s",
            "delete_surrounding_text before_length:u after_length:u",
            "done serial:u",
        },
    },
    zwp_text_input_manager_v3 = {
        requests = {
            "destroy",
            "get_text_input id:n=zwp_text_input_v3 seat:o",
        },
    },
}
