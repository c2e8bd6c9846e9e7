/* flux/hub/part.c: a part of a file, to be sent. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "flux/hub/hub-private.h"

typedef struct {
  GInputStream parent;
  FluxHub *hub; /* not owned */
  char *path;
  int fd, failure; /* errno of open() */
  guint64 at, left, sent;
} Part;

static gpointer parent_class;

static gssize
part_read (GInputStream *stream, void *buffer, gsize count, GCancellable *cancellable,
    GError **error)
{
  Part *self = (Part *)stream;
  ssize_t n;

  if (self->fd < 0) {
    flux_error_from_errno (
        error, FLUX_ERROR_READ, self->failure, "Cannot read", self->path);
    return -1;
  }
  if (self->left == 0)
    return 0;
  do
    n = pread (self->fd, buffer, MIN (count, self->left), (off_t)self->at);
  while (n < 0 && errno == EINTR);
  if (n < 0) {
    flux_error_from_errno (error, FLUX_ERROR_READ, errno, "Cannot read", self->path);
    return -1;
  }
  if (n == 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "'%s' became shorter while it was sent: wait until it is written, and try again.",
        self->path);
    return -1;
  }
  self->at += (guint64)n;
  self->left -= (guint64)n;
  self->sent += (guint64)n;
  flux_hub_count (self->hub, n);
  return n;
}

/* What was sent in vain does not count. */
static void
part_finalize (GObject *object)
{
  Part *self = (Part *)object;

  if (self->left > 0)
    flux_hub_count (self->hub, -(gint64)self->sent);
  if (self->fd >= 0)
    close (self->fd);
  g_free (self->path);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
part_class_init (gpointer klass, gpointer data)
{
  parent_class = g_type_class_peek_parent (klass);
  G_OBJECT_CLASS (klass)->finalize = part_finalize;
  G_INPUT_STREAM_CLASS (klass)->read_fn = part_read;
}

static void
part_init (GTypeInstance *instance, gpointer klass)
{
  ((Part *)instance)->fd = -1;
}

/* The library is linked into plugin and program: each copy has a type of its own. */
static GType
part_get_type (void)
{
  static gsize type = 0;

  if (g_once_init_enter (&type)) {
    g_autofree char *name = g_strdup_printf ("FluxHubPart-%p", (gpointer)&type);

    g_once_init_leave (&type,
        g_type_register_static_simple (G_TYPE_INPUT_STREAM, name,
            sizeof (GInputStreamClass), part_class_init, sizeof (Part), part_init, 0));
  }
  return type;
}

GInputStream *
flux_hub_part_new (FluxHub *hub, const char *path, guint64 first, guint64 length)
{
  Part *self = g_object_new (part_get_type (), NULL);

  self->hub = hub;
  self->path = g_strdup (path);
  self->at = first;
  self->left = length;
  self->fd = open (path, O_RDONLY | O_CLOEXEC);
  self->failure = errno;
  return G_INPUT_STREAM (self);
}
