/* tests/flux/test-report.c: what reports write. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "flux/error.h"
#include "flux/report/report-private.h"

static char *folder;

static void
remove_all (const char *path)
{
  GDir *dir = g_dir_open (path, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    char *child = g_build_filename (path, name, NULL);

    remove_all (child);
    g_free (child);
  }
  if (dir != NULL)
    g_dir_close (dir);
  g_remove (path);
}

static FluxReport *
open_report (FluxReportTo to, GError **error)
{
  static const FluxReportSetting settings[] = {
      {"rank", NULL, 4}, {"model", "tiny \"quoted\"", 0}};
  FluxReportConfig config = {0};

  config.to = to;
  config.folder = folder;
  config.settings = settings;
  config.n_settings = G_N_ELEMENTS (settings);
  return flux_report_new (&config, error);
}

static FluxReportStep
step_of (guint64 n)
{
  FluxReportStep s = {n, 10, 0, 1.0 / (double)n, 1e-4, 0.5, 0.25, 2, 64, 1 << 30};

  return s;
}

static void
test_jsonl (void)
{
  GError *error = NULL;
  FluxReport *r = open_report (FLUX_REPORT_JSONL, &error);
  FluxReportStep bad = step_of (3);
  char *path, *text, **lines;

  g_assert_no_error (error);
  path = g_strdup (flux_report_get_location (r, FLUX_REPORT_JSONL));
  g_assert_null (flux_report_get_location (r, FLUX_REPORT_TENSORBOARD));
  g_assert_true (flux_report_paired_loss (r, 0, 0.75, &error));
  for (guint64 i = 1; i < 3; i++) {
    FluxReportStep s = step_of (i);

    g_assert_true (flux_report_step (r, &s, &error));
  }
  bad.loss = G_MAXDOUBLE * 2;
  bad.learning_rate = 1e-8;
  g_assert_true (flux_report_step (r, &bad, &error));
  flux_report_free (r, TRUE);
  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  lines = g_strsplit (text, "\n", -1);
  g_assert_cmpuint (g_strv_length (lines), ==, 5); /* the last one is empty */
  for (guint i = 0; i < 4; i++) {
    JsonNode *node = json_from_string (lines[i], &error);
    JsonObject *o;

    g_assert_no_error (error);
    o = json_node_get_object (node);
    g_assert_cmpint (json_object_get_int_member (o, "step"), ==, i);
    if (i == 0) {
      g_assert_cmpfloat (json_object_get_double_member (o, "paired_loss"), ==, 0.75);
    } else if (i < 3) {
      g_assert_cmpfloat (json_object_get_double_member (o, "loss"), ==, 1.0 / i);
      g_assert_cmpfloat (json_object_get_double_member (o, "images_per_second"), ==, 8);
      g_assert_cmpfloat (json_object_get_double_member (o, "tokens_per_second"), ==, 256);
      g_assert_cmpint (json_object_get_int_member (o, "memory_bytes"), ==, 1 << 30);
    } else {
      g_assert_true (json_object_get_null_member (o, "loss"));
      g_assert_cmpfloat_with_epsilon (
          json_object_get_double_member (o, "learning_rate"), 1e-8, 1e-20);
      g_assert_null (strstr (lines[i], "e-08.0"));
    }
    json_node_unref (node);
  }
  g_strfreev (lines);
  g_free (text);
  g_free (path);
}

static guint32
le32 (const guint8 *p)
{
  return p[0] | (guint32)p[1] << 8 | (guint32)p[2] << 16 | (guint32)p[3] << 24;
}

static guint32
unmask (guint32 masked)
{
  guint32 rotated = masked - 0xa282ead8u;

  return rotated >> 17 | rotated << 15;
}

/* RFC 3720 B.4. */
static void
test_checksums (void)
{
  static const guint8 zeros[32] = {0};

  g_assert_cmphex (flux_report_crc (FLUX_CRC32C, 0, zeros, 32), ==, 0x8a9136aa);
  g_assert_cmphex (flux_report_crc (FLUX_CRC32C, 0, "123456789", 9), ==, 0xe3069283);
}

/* Records of an event file, each with its two checksums. */
static void
test_tensorboard (void)
{
  static const guint8 rgb[2 * 8] = {255, 0, 0, 0, 255, 0, 9, 9, 0, 0, 255, 1, 2, 3, 9, 9};
  FluxReportPicture picture = {1, "a red fox", rgb, 2, 2, 8};
  GError *error = NULL;
  FluxReport *r = open_report (FLUX_REPORT_TENSORBOARD, &error);
  FluxReportStep s = step_of (1);
  char *path, *text;
  gsize length, at = 0;
  guint n = 0;

  g_assert_no_error (error);
  path = g_strdup (flux_report_get_location (r, FLUX_REPORT_TENSORBOARD));
  g_assert_true (flux_report_step (r, &s, &error));
  g_assert_true (flux_report_paired_loss (r, 1, 0.5, &error));
  g_assert_true (flux_report_picture (r, &picture, &error));
  flux_report_free (r, TRUE);
  g_assert_true (g_file_get_contents (path, &text, &length, NULL));
  while (at < length) {
    const guint8 *p = (const guint8 *)text + at;
    guint32 size = le32 (p);

    g_assert_cmpuint (at + 16 + size, <=, length);
    g_assert_cmphex (unmask (le32 (p + 8)), ==, flux_report_crc (FLUX_CRC32C, 0, p, 8));
    g_assert_cmphex (unmask (le32 (p + 12 + size)), ==,
        flux_report_crc (FLUX_CRC32C, 0, p + 12, size));
    at += 16 + size;
    n++;
  }
  g_assert_cmpuint (n, ==, 6); /* version, settings, step, paired loss, picture, end */
  g_free (text);
  g_free (path);
}

/* The bytes of records, which blocks may cut; torn: the last one may lack its end. */
static GPtrArray *
read_wandb (const char *folder_of_run, gboolean torn)
{
  GPtrArray *records =
      g_ptr_array_new_with_free_func ((GDestroyNotify)g_byte_array_unref);
  g_autofree char *id = g_strdup (strrchr (folder_of_run, '-') + 1);
  g_autofree char *path = g_strdup_printf ("%s/run-%s.wandb", folder_of_run, id);
  g_autofree char *text = NULL;
  GByteArray *record = NULL;
  gsize length, at = 7;

  g_assert_true (g_file_get_contents (path, &text, &length, NULL));
  g_assert_cmpmem (text, 7, ":W&B\xe1\xbe\0", 7);
  while (at < length) {
    const guint8 *p = (const guint8 *)text + at;
    gsize size, room = 32768 - at % 32768;

    if (room < 7) {
      g_assert_cmpmem (p, room, "\0\0\0\0\0\0\0", room);
      at += room;
      continue;
    }
    if (torn && (length - at < 7 || at + 7 + (size = p[4] | (gsize)p[5] << 8) > length))
      break;
    size = p[4] | (gsize)p[5] << 8;
    g_assert_cmpuint (7 + size, <=, room);
    g_assert_cmpuint (at + 7 + size, <=, length);
    g_assert_cmphex (le32 (p), ==, flux_report_crc (0xedb88320u, 0, p + 6, 1 + size));
    g_assert_true ((record == NULL) == (p[6] == 1 || p[6] == 2));
    if (record == NULL)
      record = g_byte_array_new ();
    g_byte_array_append (record, p + 7, (guint)size);
    if (p[6] == 1 || p[6] == 4)
      g_ptr_array_add (records, g_steal_pointer (&record));
    at += 7 + size;
  }
  g_assert_true (torn ? at < length : at == length && record == NULL);
  g_clear_pointer (&record, g_byte_array_unref);
  return records;
}

/* Whether that record, of those that read_wandb() gave, has these bytes. */
static gboolean
has (GPtrArray *records, guint i, const char *words)
{
  GByteArray *r = g_ptr_array_index (records, i);

  return memmem (r->data, r->len, words, strlen (words)) != NULL;
}

static void
test_wandb (void)
{
  static const guint8 rgb[2 * 8] = {255, 0, 0, 0, 255, 0, 9, 9, 0, 0, 255, 1, 2, 3, 9, 9};
  g_autofree char *prompt = g_strnfill (70000, 'a'), *path = NULL;
  FluxReportPicture picture = {1, prompt, rgb, 2, 2, 8};
  GError *error = NULL;
  FluxReport *r = open_report (FLUX_REPORT_WANDB, &error);
  FluxReportStep s = step_of (2);
  GPtrArray *records;

  g_assert_no_error (error);
  path = g_strdup (flux_report_get_location (r, FLUX_REPORT_WANDB));
  g_assert_nonnull (strstr (path, "/wandb/offline-run-"));
  g_assert_true (flux_report_paired_loss (r, 0, 0.75, &error));
  g_assert_true (flux_report_step (r, &s, &error));
  s.loss = NAN;
  g_assert_true (flux_report_step (r, &s, &error));
  g_assert_true (flux_report_picture (r, &picture, &error));
  /* What a kill leaves here is whole. */
  records = read_wandb (path, FALSE);
  g_assert_cmpuint (records->len, ==, 14);
  g_ptr_array_unref (records);
  flux_report_free (r, TRUE);
  records = read_wandb (path, FALSE);
  g_assert_cmpuint (records->len, ==, 16); /* summary, exit */
  g_assert_true (has (records, 1, "\"tiny \\\"quoted\\\"\""));
  g_assert_true (has (records, 5,
      "train/paired_loss\x82\x01\x04"
      "0.75"));
  g_assert_true (has (records, 7,
      "train/loss\x82\x01\x03"
      "0.5"));
  g_assert_true (has (records, 9, "train/loss\x82\x01\x05\"NaN\""));
  g_assert_true (has (records, 12, prompt));
  g_assert_true (has (records, 15, "\x92\x01\x04\x08")); /* exit, of code 0 */
  g_ptr_array_unref (records);
}

/* One message, and the other formats go on. */
static void
test_full_disk (void)
{
  struct rlimit before, small;
  GError *error = NULL;
  FluxReport *r = open_report (
      FLUX_REPORT_JSONL | FLUX_REPORT_TENSORBOARD | FLUX_REPORT_WANDB, &error);
  g_autofree char *wandb = NULL;
  FluxReportStep s = step_of (1);
  guint failures = 0;
  GPtrArray *records;

  g_assert_no_error (error);
  wandb = g_strdup (flux_report_get_location (r, FLUX_REPORT_WANDB));
  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &before);
  small = before;
  small.rlim_cur = 1500; /* write() then fails as on a full disk, with EFBIG */
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &small), ==, 0);
  for (guint i = 0; i < 100; i++)
    if (!flux_report_step (r, &s, &error)) {
      failures++;
      g_assert_error (error, FLUX_ERROR, FLUX_ERROR_WRITE);
      g_clear_error (&error);
    }
  setrlimit (RLIMIT_FSIZE, &before);
  g_assert_cmpuint (failures, ==, 3);
  flux_report_free (r, TRUE);
  /* Nothing stands behind half a record, where no reader comes to. */
  records = read_wandb (wandb, TRUE);
  g_assert_cmpuint (records->len, >=, 5);
  g_ptr_array_unref (records);
}

static void
test_unwritable (void)
{
  char *file = g_build_filename (folder, "file", NULL), *kept = folder;
  GError *error = NULL;

  g_assert_true (g_file_set_contents (file, "x", 1, NULL));
  folder = g_build_filename (file, "reports", NULL);
  g_assert_null (open_report (FLUX_REPORT_JSONL, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_WRITE);
  g_assert_nonnull (strstr (error->message, folder));
  g_clear_error (&error);
  g_assert_null (open_report (FLUX_REPORT_TENSORBOARD, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_WRITE);
  g_clear_error (&error);
  g_assert_null (open_report (FLUX_REPORT_WANDB, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_WRITE);
  g_clear_error (&error);
  g_free (folder);
  folder = kept;
  g_free (file);
}

int
main (int argc, char **argv)
{
  int status;

  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("flux-report-XXXXXX", NULL);
  g_test_add_func ("/report/checksums", test_checksums);
  g_test_add_func ("/report/jsonl", test_jsonl);
  g_test_add_func ("/report/tensorboard", test_tensorboard);
  g_test_add_func ("/report/wandb", test_wandb);
  g_test_add_func ("/report/full-disk", test_full_disk);
  g_test_add_func ("/report/unwritable", test_unwritable);
  status = g_test_run ();
  remove_all (folder);
  g_free (folder);
  return status;
}
