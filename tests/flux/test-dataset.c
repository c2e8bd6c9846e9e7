/* Captioned pictures from folders and parquet files, and what is refused.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#include "flux/data/dataset.h"
#include "flux/error.h"

typedef struct {
  gchar *dir;
  FluxDatasetOptions options;
} Fixture;

static gchar *
data_path (const gchar *name)
{
  return g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", name, NULL);
}

/* A file below the fixture's folder; folders in between are made. */
static void
put (Fixture *f, const gchar *name, gconstpointer data, gssize size)
{
  gchar *path = g_build_filename (f->dir, name, NULL);
  gchar *parent = g_path_get_dirname (path);
  GError *error = NULL;

  g_mkdir_with_parents (parent, 0700);
  g_file_set_contents (path, data, size, &error);
  g_assert_no_error (error);
  g_free (parent);
  g_free (path);
}

/* A copy of tests/data/`from`. */
static void
copy (Fixture *f, const gchar *from, const gchar *name)
{
  gchar *path = data_path (from), *data;
  GError *error = NULL;
  gsize size;

  g_file_get_contents (path, &data, &size, &error);
  g_assert_no_error (error);
  put (f, name, data, size);
  g_free (data);
  g_free (path);
}

static void
remove_tree (const gchar *path)
{
  GDir *dir =
      g_file_test (path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open (path, 0, NULL);
  const gchar *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    gchar *inner = g_build_filename (path, name, NULL);

    remove_tree (inner);
    g_free (inner);
  }
  if (dir != NULL)
    g_dir_close (dir);
  g_remove (path);
}

static void
set_up (Fixture *f, gconstpointer unused)
{
  f->dir = g_dir_make_tmp ("flux-dataset-XXXXXX", NULL);
  f->options.location = f->dir;
}

static void
tear_down (Fixture *f, gconstpointer unused)
{
  remove_tree (f->dir);
  g_free (f->dir);
}

static FluxDataset *
open_good (Fixture *f, guint n_samples)
{
  GError *error = NULL;
  FluxDataset *dataset = flux_dataset_open (&f->options, &error);

  g_assert_no_error (error);
  g_assert_cmpuint (flux_dataset_get_n_samples (dataset), ==, n_samples);
  return dataset;
}

static void
assert_refused (Fixture *f, const gchar *first, const gchar *second)
{
  GError *error = NULL;

  g_assert_null (flux_dataset_open (&f->options, &error));
  g_assert_nonnull (error);
  g_assert_true (error->domain == FLUX_ERROR);
  if (strstr (error->message, first) == NULL || strstr (error->message, second) == NULL)
    g_error ("'%s' and '%s' are not in: %s", first, second, error->message);
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
  g_error_free (error);
}

static void
assert_sample (FluxDataset *dataset, guint index, const gchar *name, const gchar *caption,
    FluxImageFormat format)
{
  FluxDatasetSample sample;
  GError *error = NULL;

  g_assert_true (flux_dataset_read (dataset, index, &sample, &error));
  g_assert_no_error (error);
  g_assert_true (g_str_has_suffix (sample.name, name));
  g_assert_cmpstr (sample.caption, ==, caption);
  g_assert_cmpint (sample.format, ==, format);
  g_assert_cmpuint (g_bytes_get_size (sample.bytes), >, 0);
  flux_dataset_sample_clear (&sample);
}

static void
assert_unreadable (FluxDataset *dataset, guint index, const gchar *part)
{
  FluxDatasetSample sample;
  GError *error = NULL;

  g_assert_false (flux_dataset_read (dataset, index, &sample, &error));
  g_assert_nonnull (error);
  if (strstr (error->message, part) == NULL)
    g_error ("'%s' is not in: %s", part, error->message);
  g_error_free (error);
  g_assert_null (sample.bytes);
}

/* ---- metadata.jsonl ---- */

static void
test_metadata (Fixture *f, gconstpointer unused)
{
  static const gchar lines[] =
      "{\"file_name\": \"b.png\", \"text\": \"the \\\"second\\\" \\u00e9\"}\r\n"
      "\n"
      "{\"text\": \"in a folder\", \"n\": [1, {\"x\": null}], \"file_name\": "
      "\"sub/a.jpg\"}\n"
      "{\"file_name\": \"b.png\", \"text\": \"ünïcode\"}";
  FluxDataset *dataset;

  copy (f, "images/rgb8.png", "b.png");
  copy (f, "images/rgb-420.jpg", "sub/a.jpg");
  copy (f, "images/rgb8.png", "not-named.png");
  put (f, "metadata.jsonl", lines, -1);
  dataset = open_good (f, 3);
  assert_sample (dataset, 0, "/b.png", "the \"second\" \303\251", FLUX_IMAGE_FORMAT_PNG);
  assert_sample (dataset, 1, "/sub/a.jpg", "in a folder", FLUX_IMAGE_FORMAT_JPEG);
  assert_sample (dataset, 2, "/b.png", "ünïcode", FLUX_IMAGE_FORMAT_PNG);
  assert_unreadable (dataset, 3, "beyond");
  g_assert_null (flux_dataset_get_warning (dataset));
  flux_dataset_free (dataset);
}

/* A mark at the start, another column, the prompt for what has no caption. */
static void
test_metadata_columns (Fixture *f, gconstpointer unused)
{
  static const gchar lines[] = "\xef\xbb\xbf{\"file_name\": \"a.png\", \"p\": \"one\"}\n"
                               "{\"file_name\": \"a.png\", \"p\": null}\n"
                               "{\"file_name\": \"a.png\", \"p\": \" \"}\n"
                               "{\"file_name\": \"a.png\", \"text\": \"other\"}\n";
  FluxDataset *dataset;

  copy (f, "images/rgb8.png", "a.png");
  put (f, "metadata.jsonl", lines, -1);
  assert_refused (f, "metadata.jsonl', line 1", "(the line has file_name, p)");
  f->options.caption_column = "p";
  assert_refused (f, "metadata.jsonl', line 2", "a.png' has no caption in \"p\"");
  f->options.instance_prompt = "sks dog";
  dataset = open_good (f, 4);
  assert_sample (dataset, 0, "a.png", "one", FLUX_IMAGE_FORMAT_PNG);
  for (guint i = 1; i < 4; i++)
    assert_sample (dataset, i, "a.png", "sks dog", FLUX_IMAGE_FORMAT_PNG);
  flux_dataset_free (dataset);
}

static void
test_metadata_by_itself (Fixture *f, gconstpointer unused)
{
  gchar *path = g_build_filename (f->dir, "other.jsonl", NULL);

  copy (f, "images/rgb8.png", "a.png");
  put (f, "other.jsonl", "{\"file_name\": \"a.png\", \"text\": \"x\"}", -1);
  f->options.location = path;
  flux_dataset_free (open_good (f, 1));
  g_free (path);
}

static void
test_metadata_refused (Fixture *f, gconstpointer unused)
{
  static const struct {
    const gchar *line, *part;
  } cases[] = {{"{\"text\": \"x\"}", "no \"file_name\", only text"},
      {"{}", "an empty object"}, {"[1]", "not a JSON object"}, {"{", "not a JSON object"},
      {"{\"file_name\": \"a.png\", \"text\": \"x\"} {", "not a JSON object"},
      {"{\"file_name\": \"a.png\", \"text\": 3}", "not a JSON object with text"},
      {"{\"file_name\": \"a.png\", \"file_name\": \"a.png\"}", "not a JSON object"},
      {"{\"file_name\": \"no.png\", \"text\": \"x\"}", "no.png' is missing"},
      {"{\"file_name\": \"sub\", \"text\": \"x\"}", "sub' is missing"},
      {"{\"file_name\": \"../a.png\", \"text\": \"x\"}", "leads out"},
      {"{\"file_name\": \"sub/../../a.png\", \"text\": \"x\"}", "leads out"},
      {"{\"file_name\": \"/etc/passwd\", \"text\": \"x\"}", "leads out"},
      {"{\"file_name\": \"\", \"text\": \"x\"}", "leads out"},
      {"{\"file_name\": \"a.png\", \"text\": \"caf\xe9\"}", "save the file as UTF-8"},
      {"{\"file_name\": \"a.png\"}", "no caption"}};

  copy (f, "images/rgb8.png", "a.png");
  copy (f, "images/rgb8.png", "sub/a.png");
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    gchar *text = g_strdup_printf (
        "{\"file_name\": \"a.png\", \"text\": \"good\"}\n%s\n", cases[i].line);

    put (f, "metadata.jsonl", text, -1);
    assert_refused (f, "metadata.jsonl', line 2:", cases[i].part);
    g_free (text);
  }
}

/* Lines that no caption needs: long ones, deep ones. */
static void
test_metadata_bounds (Fixture *f, gconstpointer unused)
{
  GString *text = g_string_new ("{\"file_name\": \"a.png\", \"text\": \"");

  copy (f, "images/rgb8.png", "a.png");
  for (guint i = 0; i < 70000; i++)
    g_string_append_c (text, 'x');
  g_string_append (text, "\"}");
  put (f, "metadata.jsonl", text->str, text->len);
  assert_refused (f, "line 1", "caption of");
  g_string_assign (text, "{\"a\": ");
  for (guint i = 0; i < 200000; i++)
    g_string_append_c (text, '[');
  put (f, "metadata.jsonl", text->str, text->len);
  assert_refused (f, "line 1", "not a JSON object");
  for (guint i = 0; i < 900000; i++)
    g_string_append_c (text, ' ');
  g_string_append_c (text, ']');
  put (f, "metadata.jsonl", text->str, text->len);
  assert_refused (f, "line 1", "1048576 bytes");
  g_string_free (text, TRUE);
}

/* ---- pictures with files beside them ---- */

static void
test_sidecars (Fixture *f, gconstpointer unused)
{
  FluxDataset *dataset;

  copy (f, "images/rgb8.png", "b.PNG");
  put (f, "b.txt", "  two\r\nlines\n", -1);
  copy (f, "images/rgb-420.jpg", "a.b.jpeg");
  put (f, "a.b.caption", "\357\273\277dotted", -1);
  copy (f, "images/rgb-lossy.webp", "c.webp");
  put (f, "c.txt", "txt first", -1);
  put (f, "c.caption", "caption second", -1);
  put (f, "readme.md", "not a picture", -1);
  copy (f, "images/rgb8.png", ".hidden.png");
  dataset = open_good (f, 3);
  assert_sample (dataset, 0, "/a.b.jpeg", "dotted", FLUX_IMAGE_FORMAT_JPEG);
  assert_sample (dataset, 1, "/b.PNG", "two  lines", FLUX_IMAGE_FORMAT_PNG);
  assert_sample (dataset, 2, "/c.webp", "txt first", FLUX_IMAGE_FORMAT_WEBP);
  flux_dataset_free (dataset);
}

static void
test_instance_prompt (Fixture *f, gconstpointer unused)
{
  FluxDataset *dataset;

  copy (f, "images/rgb8.png", "a.png");
  copy (f, "images/rgb8.png", "b.png");
  put (f, "b.txt", "\n", -1);
  copy (f, "images/rgb8.png", "c.png");
  put (f, "c.txt", "its own", -1);
  assert_refused (f, "a.png' has no caption", "instance-prompt");
  f->options.instance_prompt = "sks dog";
  dataset = open_good (f, 3);
  assert_sample (dataset, 0, "a.png", "sks dog", FLUX_IMAGE_FORMAT_PNG);
  assert_sample (dataset, 1, "b.png", "sks dog", FLUX_IMAGE_FORMAT_PNG);
  assert_sample (dataset, 2, "c.png", "its own", FLUX_IMAGE_FORMAT_PNG);
  flux_dataset_free (dataset);
}

static void
test_latin1_sidecar (Fixture *f, gconstpointer unused)
{
  copy (f, "images/rgb8.png", "a.png");
  put (f, "a.txt", "caf\xe9", -1);
  f->options.instance_prompt = "not used instead";
  assert_refused (f, "a.txt' is not UTF-8", "save it as UTF-8");
}

/* Only named at the end of the file, or only recognised by content. */
static void
test_format_by_content_then_name (Fixture *f, gconstpointer unused)
{
  FluxDataset *dataset;

  copy (f, "images/rgb8.png", "a.jpg");
  put (f, "b.webp", "", 0);
  put (f, "b.txt", "x", 1);
  put (f, "c.jpg", "GIF89a", 6);
  put (f, "metadata.jsonl",
      "{\"file_name\": \"a.jpg\", \"text\": \"x\"}\n"
      "{\"file_name\": \"c.jpg\", \"text\": \"x\"}\n"
      "{\"file_name\": \"b.txt\", \"text\": \"x\"}\n",
      -1);
  dataset = open_good (f, 3);
  assert_sample (dataset, 0, "a.jpg", "x", FLUX_IMAGE_FORMAT_PNG);
  assert_sample (dataset, 1, "c.jpg", "x", FLUX_IMAGE_FORMAT_OTHER);
  assert_sample (dataset, 2, "b.txt", "x", FLUX_IMAGE_FORMAT_PNG);
  flux_dataset_free (dataset);
}

static void
test_other_formats_left_out (Fixture *f, gconstpointer unused)
{
  FluxDataset *dataset;

  f->options.instance_prompt = "x";
  put (f, "a.gif", "GIF89a", 6);
  assert_refused (f, f->dir, "is empty");
  put (f, "c.TIFF", "II*", 4);
  copy (f, "images/rgb8.png", "b.png");
  dataset = open_good (f, 1);
  assert_sample (dataset, 0, "b.png", "x", FLUX_IMAGE_FORMAT_PNG);
  g_assert_nonnull (strstr (flux_dataset_get_warning (dataset), "2 pictures"));
  g_assert_nonnull (strstr (flux_dataset_get_warning (dataset), "a.gif"));
  flux_dataset_free (dataset);
}

/* A FIFO must not hang, a file that went away is named. */
static void
test_not_a_file (Fixture *f, gconstpointer unused)
{
  gchar *path = g_build_filename (f->dir, "a.png", NULL);
  FluxDataset *dataset;

  f->options.instance_prompt = "x";
  g_assert_cmpint (mkfifo (path, 0600), ==, 0);
  dataset = open_good (f, 1);
  assert_unreadable (dataset, 0, "a.png' is not a regular file");
  g_remove (path);
  assert_unreadable (dataset, 0, "a.png");
  flux_dataset_free (dataset);
  g_free (path);
}

/* ---- locations ---- */

static void
test_train_folder (Fixture *f, gconstpointer unused)
{
  copy (f, "images/rgb8.png", "train/a.png");
  copy (f, "images/rgb8.png", "test/b.png");
  f->options.instance_prompt = "x";
  flux_dataset_free (open_good (f, 1));
}

static void
test_no_location (Fixture *f, gconstpointer unused)
{
  assert_refused (f, f->dir, "is empty");
  f->options.location = "/nonexistent/folder";
  assert_refused (f, "/nonexistent/folder", "set location");
  f->options.location = "";
  assert_refused (f, "No data set", "set location");
  f->options.location = NULL;
  assert_refused (f, "No data set", "set location");
  f->options.location = "hf://datasets/a/b";
  assert_refused (f, "hf://datasets/a/b", "is no folder");
  f->options.location = "/etc/passwd";
  assert_refused (f, "/etc/passwd", "no data set");
}

/* ---- parquet ---- */

static void
test_parquet_folder (Fixture *f, gconstpointer unused)
{
  gchar *hub = data_path ("dataset/hub");
  FluxDataset *dataset;

  f->options.location = hub;
  dataset = open_good (f, 4);
  assert_sample (
      dataset, 3, "train-00001-of-00002.parquet row 0", "fourth", FLUX_IMAGE_FORMAT_JPEG);
  assert_sample (
      dataset, 0, "train-00000-of-00002.parquet row 0", "first", FLUX_IMAGE_FORMAT_PNG);
  assert_sample (
      dataset, 2, "train-00000-of-00002.parquet row 2", "第三", FLUX_IMAGE_FORMAT_WEBP);
  assert_sample (dataset, 1, "train-00000-of-00002.parquet row 1", "zwei Bäume",
      FLUX_IMAGE_FORMAT_JPEG);
  flux_dataset_free (dataset);
  g_free (hub);
}

static void
test_parquet_gaps (Fixture *f, gconstpointer unused)
{
  gchar *path = data_path ("dataset/gaps.parquet");
  FluxDataset *dataset;

  f->options.location = path;
  dataset = open_good (f, 4);
  assert_unreadable (dataset, 0, "gaps.parquet row 0' has no caption");
  assert_unreadable (dataset, 1, "row 1: there is no picture");
  assert_unreadable (dataset, 2, "../images/rgb8.png");
  assert_sample (dataset, 3, "gaps.parquet row 3", "moving", FLUX_IMAGE_FORMAT_OTHER);
  flux_dataset_free (dataset);
  f->options.instance_prompt = "fallback";
  dataset = open_good (f, 4);
  assert_sample (dataset, 0, "gaps.parquet row 0", "fallback", FLUX_IMAGE_FORMAT_PNG);
  flux_dataset_free (dataset);
  g_free (path);
}

static void
test_parquet_columns (Fixture *f, gconstpointer unused)
{
  gchar *path = data_path ("dataset/prompt.parquet");
  FluxDataset *dataset;

  f->options.location = path;
  assert_refused (f, "prompt.parquet' has no text column", "prompt");
  f->options.caption_column = "prompt";
  dataset = open_good (f, 1);
  assert_sample (dataset, 0, "row 0", "by another name", FLUX_IMAGE_FORMAT_PNG);
  flux_dataset_free (dataset);
  g_free (path);
}

static void
test_parquet_refused (Fixture *f, gconstpointer unused)
{
  gchar *embeddings = data_path ("dataset/embeddings.parquet");
  gchar *empty = data_path ("dataset/empty.parquet");
  gchar *latin1 = data_path ("dataset/latin1.parquet"), *broken;
  FluxDataset *dataset;

  f->options.location = embeddings;
  assert_refused (f, "embeddings.parquet' holds no pictures", "image_hash");
  f->options.location = empty;
  assert_refused (f, "empty.parquet", "is empty");
  f->options.location = latin1;
  dataset = open_good (f, 1);
  assert_unreadable (dataset, 0, "not UTF-8");
  flux_dataset_free (dataset);
  put (f, "broken.parquet", "PAR1 not really", -1);
  f->options.location = broken = g_build_filename (f->dir, "broken.parquet", NULL);
  assert_refused (f, "broken.parquet", "");
  g_free (embeddings);
  g_free (empty);
  g_free (latin1);
  g_free (broken);
}

#define ADD(path, function)                                                              \
  g_test_add ("/dataset/" path, Fixture, NULL, set_up, function, tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  ADD ("metadata", test_metadata);
  ADD ("metadata/columns", test_metadata_columns);
  ADD ("metadata/by-itself", test_metadata_by_itself);
  ADD ("metadata/refused", test_metadata_refused);
  ADD ("metadata/bounds", test_metadata_bounds);
  ADD ("sidecars", test_sidecars);
  ADD ("sidecars/instance-prompt", test_instance_prompt);
  ADD ("sidecars/latin1", test_latin1_sidecar);
  ADD ("format-by-content-then-name", test_format_by_content_then_name);
  ADD ("other-formats-left-out", test_other_formats_left_out);
  ADD ("not-a-file", test_not_a_file);
  ADD ("train-folder", test_train_folder);
  ADD ("no-location", test_no_location);
  ADD ("parquet/folder", test_parquet_folder);
  ADD ("parquet/gaps", test_parquet_gaps);
  ADD ("parquet/columns", test_parquet_columns);
  ADD ("parquet/refused", test_parquet_refused);
  return g_test_run ();
}
