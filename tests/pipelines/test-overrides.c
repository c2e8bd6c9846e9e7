/* tests/pipelines/test-overrides.c: key=value words of gst-flux. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <gst/gst.h>
#include <string.h>

#include "pipelines/overrides.h"

/* An element with what GStreamer's own have none of: flags, and a string, to set. */
typedef GstElement Various;
typedef GstElementClass VariousClass;

static GType various_get_type (void);
G_DEFINE_TYPE (Various, various, GST_TYPE_ELEMENT)

static GType
letters_get_type (void)
{
  static const GFlagsValue values[] = {
      {1, "Alpha", "alpha"}, {2, "Beta", "beta"}, {0, NULL, NULL}};
  static GType type = 0;

  if (type == 0)
    type = g_flags_register_static ("TestLetters", values);
  return type;
}

static void
various_set_property (GObject *object, guint id, const GValue *value, GParamSpec *spec)
{
  (void)object, (void)id, (void)value, (void)spec;
}

static void
various_class_init (VariousClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->set_property = various_set_property;
  g_object_class_install_property (object_class, 1,
      g_param_spec_flags ("letters", "", "", letters_get_type (), 0, G_PARAM_WRITABLE));
  g_object_class_install_property (
      object_class, 2, g_param_spec_string ("text", "", "", NULL, G_PARAM_WRITABLE));
  gst_element_class_set_static_metadata (klass, "Various", "Test", "Properties", "-");
}

static void
various_init (Various *self)
{
  (void)self;
}

static GstElement *
make_pipeline (void)
{
  return gst_object_ref_sink (gst_parse_launch (
      "fakesrc name=a num-buffers=3 sizetype=fixed ! queue name=q max-size-buffers=7 ! "
      "fakesink name=b dump=true  various name=v",
      NULL));
}

static void
check (const char *word, const char *complaint)
{
  g_autoptr (GstElement) pipeline = make_pipeline ();
  g_autoptr (GError) error = NULL;
  gboolean ok = gst_flux_override (GST_BIN (pipeline), word, &error);

  if (complaint == NULL) {
    g_assert_no_error (error);
    g_assert_true (ok);
  } else {
    g_assert_false (ok);
    g_assert_nonnull (error);
    g_assert_nonnull (strstr (error->message, complaint));
  }
}

static void
test_sets_named_property (void)
{
  g_autoptr (GstElement) pipeline = make_pipeline ();
  g_autoptr (GstElement) a = gst_bin_get_by_name (GST_BIN (pipeline), "a");
  gint n = 0;

  g_assert_true (gst_flux_override (GST_BIN (pipeline), "a.num-buffers=12", NULL));
  g_object_get (a, "num-buffers", &n, NULL);
  g_assert_cmpint (n, ==, 12);
}

static void
test_sets_unnamed_property_everywhere (void)
{
  g_autoptr (GstElement) pipeline = make_pipeline ();
  g_autoptr (GstElement) a = gst_bin_get_by_name (GST_BIN (pipeline), "a");
  gboolean silent = FALSE;

  g_assert_true (gst_flux_override (GST_BIN (pipeline), "max-size-buffers=9", NULL));
  g_assert_true (gst_flux_override (GST_BIN (pipeline), "sizetype=empty", NULL));
  g_object_get (a, "silent", &silent, NULL);
  g_assert_true (silent);
}

static void
test_refuses_with_a_sentence (void)
{
  check ("a.num-buffers=12", NULL);
  check ("nothing", "not of the form");
  check ("=3", "not of the form");
  check ("c.num-buffers=1", "No element of this pipeline is called 'c'");
  check ("a.colour=1", "has no property 'colour'");
  check ("colour=1", "No element of this pipeline has a property 'colour'");
  check ("a.num-buffers=many", "is no value for");
  check ("a.num-buffers=-7", "is no value for 'a.num-buffers' (-1 to 2147483647)");
  check ("a.sizetype=huge", "is no value for 'a.sizetype' (empty, fixed, random)");
  check ("a.sizetype=", "'' is no value for 'a.sizetype' (empty, fixed, random)");
  check ("a.num-buffers=", "'' is no value for 'a.num-buffers' (-1 to 2147483647)");
  check ("a.silent=", "'' is no value for 'a.silent' (true or false)");
  check ("v.letters=",
      "'' is no value for 'v.letters' (alpha, beta; + joins them, 0 is none)");
  check ("v.letters=alpha+gamma", "is no value for 'v.letters' (");
  check ("v.letters=alpha+beta", NULL);
  check ("v.letters=0", NULL);
  check ("v.text=", NULL);
  check ("a.last-message=x", "can only be read");
  /* true in one element, FALSE in the other: two meanings */
  check ("dump=true", "means different things");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  gst_init (&argc, &argv);
  gst_element_register (NULL, "various", GST_RANK_NONE, various_get_type ());
  g_test_add_func ("/overrides/sets-named-property", test_sets_named_property);
  g_test_add_func (
      "/overrides/sets-unnamed-property", test_sets_unnamed_property_everywhere);
  g_test_add_func ("/overrides/refuses-with-a-sentence", test_refuses_with_a_sentence);
  return g_test_run ();
}
