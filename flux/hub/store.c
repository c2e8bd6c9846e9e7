/* flux/hub/store.c: the cache's layout. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Layout: huggingface_hub's guide "Understand caching" and file_download.py
 * (_hf_hub_download_to_cache_dir); the locks are those of filelock's UnixFileLock,
 * flock(2). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flux/files/replace.h"
#include "flux/hub/hub-private.h"

char *
flux_hub_blob_path (FluxHub *hub, const char *etag)
{
  return g_build_filename (hub->cache, hub->folder, "blobs", etag, NULL);
}

char *
flux_hub_snapshot_path (FluxHub *hub, const char *commit, const char *path)
{
  return g_build_filename (hub->cache, hub->folder, "snapshots", commit,
      path != NULL && path[0] != '\0' ? path : NULL, NULL);
}

static gboolean
make_folder (const char *path, GError **error)
{
  if (g_mkdir_with_parents (path, 0777) == 0)
    return TRUE;
  flux_error_from_errno (
      error, FLUX_ERROR_WRITE, errno, "Cannot make the cache folder", path);
  return FALSE;
}

gboolean
flux_hub_store_prepare (FluxHub *hub, const char *commit, GError **error)
{
  g_autofree char *blobs = flux_hub_blob_path (hub, NULL);
  g_autofree char *snapshot = flux_hub_snapshot_path (hub, commit, NULL);
  g_autofree char *locks = g_build_filename (hub->cache, ".locks", hub->folder, NULL);

  return make_folder (blobs, error) && make_folder (snapshot, error) &&
         make_folder (locks, error);
}

gboolean
flux_hub_store_has (FluxHub *hub, const char *commit, const FluxHubFile *file)
{
  g_autofree char *path = flux_hub_snapshot_path (hub, commit, file->path);
  struct stat st;

  return stat (path, &st) == 0 && S_ISREG (st.st_mode) &&
         (guint64)st.st_size == file->size;
}

/* Opens the folder that path's last name is in, making folders on the way and following
 * no link; name: that last one. */
static int
open_folder (const char *root, const char *path, const char **name, guint *depth)
{
  int fd = open (root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const char *p = path, *slash;

  *depth = 0;
  while (fd >= 0 && (slash = strchr (p, '/')) != NULL) {
    g_autofree char *part = g_strndup (p, (gsize)(slash - p));
    int inner = -1;

    if (mkdirat (fd, part, 0777) == 0 || errno == EEXIST)
      inner = openat (fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    close (fd);
    fd = inner;
    p = slash + 1;
    (*depth)++;
  }
  *name = p;
  return fd;
}

gboolean
flux_hub_store_link (
    FluxHub *hub, const char *commit, const FluxHubFile *file, GError **error)
{
  g_autofree char *root = flux_hub_snapshot_path (hub, commit, NULL);
  g_autofree char *path = flux_hub_snapshot_path (hub, commit, file->path);
  g_autofree char *temporary = g_strdup_printf (".%s.%08x", file->etag, g_random_int ());
  g_autoptr (GString) target = g_string_new (NULL);
  const char *name;
  guint depth;
  int fd = open_folder (root, file->path, &name, &depth);
  gboolean ok = fd >= 0;
  struct stat st;

  for (guint i = 0; i < depth + 2; i++)
    g_string_append (target, "../");
  g_string_append_printf (target, "blobs/%s", file->etag);
  /* What is there may be a link to nothing, or an older size; a folder is not removed. */
  if (ok && fstatat (fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR (st.st_mode)) {
    errno = EISDIR;
    ok = FALSE;
  }
  ok = ok && symlinkat (target->str, fd, temporary) == 0;
  if (ok && renameat (fd, temporary, fd, name) != 0) {
    int saved = errno;

    unlinkat (fd, temporary, 0);
    errno = saved;
    ok = FALSE;
  }
  if (!ok)
    flux_error_from_errno (
        error, FLUX_ERROR_WRITE, errno, "Cannot link the cached file", path);
  if (fd >= 0)
    close (fd);
  return ok;
}

gboolean
flux_hub_store_ref (FluxHub *hub, const char *commit, GError **error)
{
  g_autofree char *path = NULL, *folder = NULL, *old = NULL;

  if (strcmp (hub->ref.revision, commit) == 0)
    return TRUE;
  path = g_build_filename (hub->cache, hub->folder, "refs", hub->ref.revision, NULL);
  if (g_file_get_contents (path, &old, NULL, NULL) && strcmp (old, commit) == 0)
    return TRUE;
  folder = g_path_get_dirname (path);
  return make_folder (folder, error) &&
         flux_file_replace (path, commit, strlen (commit), error);
}

char *
flux_hub_store_read_ref (FluxHub *hub)
{
  g_autofree char *path =
      g_build_filename (hub->cache, hub->folder, "refs", hub->ref.revision, NULL);
  g_autofree char *text = NULL;

  if (flux_hub_is_hex (hub->ref.revision, FLUX_HUB_COMMIT_DIGITS))
    return g_strdup (hub->ref.revision);
  if (!g_file_test (path, G_FILE_TEST_IS_REGULAR) ||
      !g_file_get_contents (path, &text, NULL, NULL))
    return NULL;
  g_strstrip (text);
  return flux_hub_is_hex (text, FLUX_HUB_COMMIT_DIGITS) ? g_steal_pointer (&text) : NULL;
}

int
flux_hub_store_lock (FluxHub *hub, const char *etag, GError **error)
{
  g_autofree char *name = g_strconcat (etag, ".lock", NULL);
  g_autofree char *path =
      g_build_filename (hub->cache, ".locks", hub->folder, name, NULL);
  int fd = open (path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);

  if (fd < 0) {
    flux_error_from_errno (error, FLUX_ERROR_WRITE, errno, "Cannot make the lock", path);
    return -1;
  }
  while (flock (fd, LOCK_EX | LOCK_NB) != 0) {
    /* A file system without locks: downloading twice is the worst that can happen. */
    if (errno != EWOULDBLOCK && errno != EINTR)
      return fd;
    if (g_cancellable_is_cancelled (hub->cancellable)) {
      close (fd);
      flux_hub_cancelled (error);
      return -1;
    }
    g_usleep (G_TIME_SPAN_SECOND / 20);
  }
  return fd;
}
