"""A small RTSP camera on 127.0.0.1: `rtsp_camera.py FOLDER PORT [USER:PASSWORD]`.

It loops the files of the folder, 00000.h264 on, one H.264 picture each, at 25 a second.

Needs GStreamer's RTSP server through `gi`, so it runs under the system's Python. It prints
`ready` when it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - the versions come first


def main() -> None:
    """Serve /live until killed."""
    folder, port, *credentials = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( multifilesrc location={folder}/%05d.h264 loop=true "
        "caps=video/x-h264,framerate=25/1,stream-format=byte-stream,alignment=au "
        "! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 )"
    )
    factory.set_shared(True)
    if credentials:
        user, password = credentials[0].split(":")
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", user)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role(user, "media.factory.access", True)
        permissions.add_permission_for_role(user, "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", flush=True)  # noqa: T201 - its parent waits for it
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
