/* flux/hub/hub-private.h: what the parts of the client share. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "flux/error.h"
#include "flux/files/json-cursor.h"
#include "flux/hub/hub.h"

G_BEGIN_DECLS

enum {
  FLUX_HUB_MAX_FILES = 200000,
  FLUX_HUB_MAX_PATH = 1024,     /* bytes of a file's name */
  FLUX_HUB_MAX_DEPTH = 32,      /* folders in it */
  FLUX_HUB_MAX_JSON = 64 << 20, /* bytes of one answer */
  FLUX_HUB_COMMIT_DIGITS = 40,
};

/* ---- uri.c: what is asked for, and of whom ---- */

typedef struct {
  gboolean is_dataset;
  char *repo;     /* "user/name", or "name" */
  char *revision; /* "main" when not given */
  char *path;     /* inside, without '/' at its ends; "" for all of it */
} FluxHubRef;

gboolean flux_hub_ref_parse (FluxHubRef *self, const char *uri, GError **error);
void flux_hub_ref_clear (FluxHubRef *self);

typedef struct {
  FluxHubRef ref;
  char *endpoint; /* without '/' at the end */
  char *token;    /* or NULL */
  char *cache;    /* CACHE */
  char *folder;   /* models--user--name */
  gboolean offline;
  guint timeout; /* seconds */
  GCancellable *cancellable;
  GMutex lock;
  guint64 done, total; /* bytes; lock */
} FluxHub;

gboolean flux_hub_init (FluxHub *self, const char *uri, GError **error);
void flux_hub_clear (FluxHub *self);
/* endpoint/[datasets/]user/name */
char *flux_hub_page (FluxHub *self);
void flux_hub_count (FluxHub *self, gint64 bytes);

/* A name from outside that may become a path below a folder. */
gboolean flux_hub_is_safe_path (const char *path);
gboolean flux_hub_is_hex (const char *text, gsize digits);

/* ---- hub.c ---- */

typedef void (*FluxHubWorkFunc) (gpointer data);
/* Calls work in a thread of its own, and progress in this one, see flux_hub_resolve().
 * FALSE when there can be no such thread. */
gboolean flux_hub_work (FluxHub *hub, FluxHubWorkFunc work, gpointer work_data,
    FluxProgressFunc progress, gpointer data, GError **error);

/* Errors that several parts have; they return FALSE. */

gboolean flux_hub_cancelled (GError **error);
gboolean flux_hub_cut_off (GError **error); /* of G_IO_ERROR: worth another try */

/* ---- request.c ---- */

typedef struct _FluxHubSession FluxHubSession; /* used by the thread that made it */

FluxHubSession *flux_hub_session_new (FluxHub *hub);
void flux_hub_session_free (FluxHubSession *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxHubSession, flux_hub_session_free)

typedef struct {
  const char *method;    /* "GET", "POST", "PUT" */
  gint64 last;           /* GET: of bytes first to last, -1: all; else -1 */
  const char *accept;    /* or NULL */
  const char *type;      /* of the body, which is */
  GBytes *bytes;         /* this, or */
  const char *file;      /* of this file */
  guint64 first, length; /* length bytes from the first on, or nothing */
  gboolean may_conflict; /* 409 is an answer too */
  gboolean once;         /* not again when it may have been heard */
} FluxHubRequest;

typedef struct {
  guint status;
  char *etag; /* as it came, or NULL */
  GInputStream *body;
  gboolean is_partial; /* 206: bytes from `first` on; otherwise all */
  gint64 first, total; /* of Content-Range; total -1 when unknown */
  char *next;          /* Link: rel="next", absolute, or NULL */
} FluxHubAnswer;

/* GET, from byte `first` to `last` when last >= 0. Follows redirects, waits and tries
 * again when the server asks for it or cannot be reached. what: the file, for messages;
 * NULL: the repository. */
gboolean flux_hub_get (FluxHubSession *self, const char *url, const char *what,
    gint64 first, gint64 last, FluxHubAnswer *answer, GError **error);
/* The same of any kind; without Range, answers of POST and PUT may have any 2xx. */
gboolean
flux_hub_send (FluxHubSession *self, const char *url, const FluxHubRequest *request,
    const char *what, FluxHubAnswer *answer, GError **error);
void flux_hub_answer_clear (FluxHubAnswer *self);
/* Whether to try again after error; then it has waited, and the error is gone. */
gboolean flux_hub_wait_retry (FluxHub *hub, guint *tries, GError **error);

/* ---- explain.c ---- */

/* How a try ended, when not well. */
typedef struct {
  guint status;      /* 0: no answer */
  gint64 wait_s;     /* Retry-After; -1: not said */
  char *code;        /* X-Error-Code, or NULL */
  GError *transport; /* with status 0 */
} FluxHubFailure;

void flux_hub_explain (FluxHub *hub, gboolean writing, const char *what,
    const FluxHubFailure *f, GError **error);

/* ---- part.c ---- */

/* A part of a file as a stream, which counts what is read (flux_hub_count) and fails when
 * the file has become shorter. */
GInputStream *
flux_hub_part_new (FluxHub *hub, const char *path, guint64 first, guint64 length);

/* ---- listing.c ---- */

/* The text of an answer's body, at most FLUX_HUB_MAX_JSON. */
GString *flux_hub_read_body (FluxHub *hub, GInputStream *body, GError **error);
/* The member of an object that is a string, or NULL. */
char *flux_hub_read_member (FluxJsonCursor *c, const char *member);

typedef struct {
  char *path; /* safe */
  char *etag; /* hex: 64 digits SHA-256 (LFS), 40 git SHA-1; NULL when listed offline */
  guint64 size;
} FluxHubFile;

void flux_hub_file_free (FluxHubFile *self);

typedef struct {
  char *commit;
  GPtrArray *files; /* FluxHubFile, by name */
} FluxHubListing;

gboolean flux_hub_list (
    FluxHubSession *session, FluxHub *hub, FluxHubListing *out, GError **error);
/* What the cache has. */
gboolean flux_hub_list_cached (FluxHub *hub, FluxHubListing *out, GError **error);
void flux_hub_listing_clear (FluxHubListing *self);

/* ---- select.c ---- */

/* The files that are needed, borrowed. *path: which of them, or which folder, is the
 * answer (g_free() it). */
GPtrArray *flux_hub_select (const FluxHubRef *ref, const FluxHubListing *listing,
    FluxHubWant want, char **path, GError **error);

/* ---- store.c: the cache ---- */

char *flux_hub_blob_path (FluxHub *hub, const char *etag);
char *flux_hub_snapshot_path (FluxHub *hub, const char *commit, const char *path);
gboolean flux_hub_store_prepare (FluxHub *hub, const char *commit, GError **error);
/* The file is in the snapshot with the size it should have. */
gboolean flux_hub_store_has (FluxHub *hub, const char *commit, const FluxHubFile *file);
/* Links the blob into the snapshot; never through a link. */
gboolean flux_hub_store_link (
    FluxHub *hub, const char *commit, const FluxHubFile *file, GError **error);
gboolean flux_hub_store_ref (FluxHub *hub, const char *commit, GError **error);
char *flux_hub_store_read_ref (FluxHub *hub);
/* -1 on failure; close() unlocks. Waits for another process that has it. */
int flux_hub_store_lock (FluxHub *hub, const char *etag, GError **error);

/* ---- fetch.c ---- */

/* Downloads the blob unless it is there. */
gboolean flux_hub_fetch (FluxHubSession *session, FluxHub *hub, const char *commit,
    const FluxHubFile *file, GError **error);

/* ---- ranges.c ---- */

/* Takes bytes in their order. */
typedef gboolean (*FluxHubSinkFunc) (
    const guint8 *data, gsize length, gpointer user, GError **error);
/* Bytes first..size of url, by several connections at once. */
gboolean flux_hub_get_ranges (FluxHub *hub, const char *url, const char *what,
    guint64 first, guint64 size, FluxHubSinkFunc sink, gpointer user, GError **error);

#define FLUX_HUB_CHUNK ((guint64)8 << 20)

/* ---- select.c ---- */

/* One of ends (the last is NULL, all in lower case), in whatever case. */
gboolean flux_hub_ends_in (const char *name, const char *const *ends);

G_END_DECLS
