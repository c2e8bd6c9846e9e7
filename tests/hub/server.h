/* tests/hub/server.h: a small Hub on loopback, for tests. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Repositories of one commit each: models ("tests/tiny") and data sets
 * ("datasets/tests/pictures"); one that has no files is not there. Endpoints, as
 * huggingface_hub uses them:
 *
 *   GET /api/models/REPO/revision/REV   {"id", "sha"}     hf_api.py model_info
 *   GET /api/models/REPO/tree/COMMIT    files, a page each   hf_api.py list_repo_tree
 *   GET, HEAD /REPO/resolve/REV/PATH    file_download.py get_hf_file_metadata:
 *       X-Repo-Commit, ETag; of LFS files 302 to /cdn/... on the second port with
 *       X-Linked-Etag and X-Linked-Size
 *
 * and of data sets the same with /api/datasets/ and /datasets/. What a push needs is in
 * push.c, each with its source.
 *
 * Written on sockets, not
 * on libsoup, so that the client is not tested with its own kind, and so that connections
 * can be cut where a test wants. */
#pragma once

#include <gio/gio.h>

#define TEST_HUB_REPO "tests/tiny"
#define TEST_HUB_COMMIT "0123456789abcdef0123456789abcdef01234567"

typedef struct {
  char *repo; /* "user/name" or "datasets/user/name" */
  char *path;
  GBytes *bytes;
  gboolean is_lfs;
  char *etag;
} TestHubFile;

typedef struct {
  GSocketService *service;
  GMainContext *context;
  GMainLoop *loop;
  GThread *thread;
  guint16 port, cdn_port;
  GPtrArray *files; /* TestHubFile */
  GMutex lock;
  GPtrArray *log; /* "PORT METHOD PATH RANGE AUTHORIZATION"; lock */
  /* What goes wrong; set before requests are made. */
  guint status;           /* of resolve, instead of the file */
  const char *error_code; /* X-Error-Code with it */
  gint n_status;          /* how often; -1: always; atomic */
  const char *retry_after;
  gint n_cut; /* atomic: bodies that stop after cut_after bytes */
  gsize cut_after;
  gboolean stall; /* ... and then keep the connection, silent */
  gboolean corrupt, longer, no_ranges;
  /* Pushing. */
  GHashTable *repos; /* model repositories that were made: name to "private", "public" */
  GHashTable *store; /* LFS: SHA-256, and SHA-256/part, to GBytes; lock */
  gsize part_size;   /* LFS files that are larger go in such parts; 0: in one */
  guint push_status; /* instead of the answer to requests whose path has push_at in it */
  const char *push_at;
  gint n_push_status; /* how often; -1: always; atomic */
  gint n_cut_put;     /* atomic: PUT bodies of which a half is read */
  gboolean stall_put; /* ... and then nothing happens */
  gboolean lose_byte; /* of each PUT body the last one */
  gboolean always_public;
} TestHub;

/* Who may write: this token, in the name space "tests". */
#define TEST_HUB_WRITE_TOKEN "hf_planted_secret"

TestHub *test_hub_new (void);
void test_hub_free (TestHub *self);
void test_hub_add (
    TestHub *self, const char *path, gconstpointer data, gsize length, gboolean is_lfs);
/* A file of another repository; all files of a folder, those over 64 KiB by LFS. */
void test_hub_add_to (TestHub *self, const char *repo, const char *path,
    gconstpointer data, gsize length, gboolean is_lfs);
void test_hub_add_folder (TestHub *self, const char *repo, const char *folder);
/* What a repository has there, or NULL. */
const TestHubFile *test_hub_find (TestHub *self, const char *repo, const char *path);
/* Lines of the log that hold text. */
guint test_hub_count (TestHub *self, const char *text);
